"""Pipeline steps as Kubeflow components: thin bodies over the library. One folder per step."""
