"""The rank server: a release, features from the online store and the item snapshot, a slate over HTTP.

Neither PyTorch nor pandas nor Kubeflow nor Feast is imported here: Feast writes the online store, ``online`` reads it.
"""
