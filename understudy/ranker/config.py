"""What the configuration says of the network."""

from understudy.section import number, section

__all__ = ["Ranker"]


@section
class Ranker:
    """DCNv2 in parallel with a DNN; a logit per head.

    Args:
        id_dimension: width of the embeddings of ids.
        category_dimension: width of the embeddings of attributes.
        cross_layers, cross_rank: depth of the cross network, and rank of its matrices.
        hidden: widths of the DNN.
        dropout: share of hidden units that are dropped in training.
        id_dropout: share of ids that are replaced by "unknown" in training, so that an unknown
            id has a trained default.
        min_id_count: ids seen less often in training are "unknown".
        position_term: whether each head has an additive term of the position; without one, what stood at
            the top looks better than it is.
    """

    id_dimension: int = number(16, low=1, high=1024)
    category_dimension: int = number(4, low=1, high=1024)
    cross_layers: int = number(2, low=0, high=16)
    cross_rank: int = number(32, low=1, high=4096)
    hidden: tuple[int, ...] = (128, 64)
    dropout: float = number(0.3, low=0, high=0.9)
    id_dropout: float = number(0.5, low=0, high=1)
    min_id_count: int = number(20, low=1)
    position_term: bool = True
