"""What the configuration says of Kubeflow Pipelines, and what should be scheduled there: decisions, without kfp."""
