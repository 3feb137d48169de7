"""Rollouts on Kubernetes: the record in a ConfigMap, an arm's Deployment, the route, and what pods and people show."""
