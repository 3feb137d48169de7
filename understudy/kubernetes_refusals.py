"""Who has refused a request to Kubernetes, by the server's words; pure.

RBAC, admission webhooks, quotas, policies and a namespace that goes all answer with 403, or with the status that a
webhook chooses. Only RBAC says that a user cannot do something to a resource, and only that is lifted by a Role.
"""

import re

__all__ = ["advice", "is_of_rbac"]

# Before the first colon stands what is forbidden; a webhook that quotes RBAC has words of its own there.
_RBAC = re.compile(r'[^:]*forbidden: User ".*?" cannot \S+ (resource|path) "')
# Words of whoever else says no, in the order in which they are looked for, and what helps then.
_OTHERS = (
    ("admission webhook", "change what the webhook names, or ask who runs it"),
    ("ValidatingAdmissionPolicy", "change what the policy names, or ask who has set it"),
    ("exceeded quota", "ask for less, or have the quota raised"),
    ("failed quota", "set what the quota asks for, or have the quota changed"),
    ("violates PodSecurity", "change the pod's settings, or have the namespace's level changed"),
    ("is being terminated", "wait until the namespace is gone and make it anew, or name another"),
    (" usage per ", "ask for what the namespace's LimitRange allows, or have it changed"),
)


def is_of_rbac(words: str) -> bool:
    """Whether a Role would lift this refusal."""
    return _RBAC.match(words) is not None


def advice(words: str) -> str:
    """What helps where a webhook, a quota or a policy has refused; empty where the words are of none of these."""
    return next((hint for mark, hint in _OTHERS if mark in words), "")
