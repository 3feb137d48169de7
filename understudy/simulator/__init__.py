"""A feed with known truth: a simulated world, and logs in KuaiRand's layout with a planted signal."""
