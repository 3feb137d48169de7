"""The retraining pipeline: one graph, on a laptop and on Kubeflow."""
