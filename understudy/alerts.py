"""Tell people that something happened: a chat's webhook, and Alertmanager, as the environment names them.

A webhook's URL is a secret: who knows it can write there. What fails is told without it.
"""

import datetime
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Mapping
from typing import Any

from understudy.http_calls import Unanswered, call, stays_inside

__all__ = ["ALERTMANAGER", "WEBHOOK", "tell"]

WEBHOOK = "UNDERSTUDY_ALERT_WEBHOOK"
ALERTMANAGER = "UNDERSTUDY_ALERTMANAGER_URL"

_LIMIT_S, _PAUSE_S = 5.0, 0.5
_MOST_BYTES = 64 << 10
_STANDS = datetime.timedelta(hours=1)  # an event has no end; Alertmanager would call it resolved after minutes


def tell(text: str, *, details: Mapping[str, Any] | None = None) -> bool:
    """Whether everybody whom the environment names was told; False where it names nobody.

    It takes at most 11 s for each of the two, and never raises: what fails is one line on stderr. The same alert told
    twice is one to Alertmanager.

    Args:
        text: a sentence or two.
        details: name → value, such as a release's digest.
    """
    named = {str(name): str(value) for name, value in (details or {}).items()}
    asked = {
        "the webhook": (os.environ.get(WEBHOOK, "").strip(), _chat(text, named)),
        "Alertmanager": (_alerts_url(os.environ.get(ALERTMANAGER, "").strip()), _alerts(text, named)),
    }
    failed = [f"{who}: {why}" for who, (url, body) in asked.items() if url and (why := _post(url, body))]
    if failed:
        print(f"alert could not be sent: {'; '.join(failed)}", file=sys.stderr, flush=True)
    return not failed and any(url for url, _ in asked.values())


def _chat(text: str, details: dict[str, str]) -> bytes:
    """As Slack reads it, and others like it: three characters are escaped, or they could call people or hide links."""
    lines = "\n".join([text, *(f"{name}: {value}" for name, value in details.items())])
    escaped = lines.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return json.dumps({"text": escaped}).encode()


def _alerts(text: str, details: dict[str, str]) -> bytes:
    """One alert, as Alertmanager's API has it; alerts with the same labels are one."""
    now = datetime.datetime.now(datetime.UTC)
    labels = {re.sub(r"\W|^(?=\d)", "_", name, flags=re.ASCII): value for name, value in details.items()}
    event = hashlib.sha256(text.encode(errors="replace")).hexdigest()[:12]
    alert = {
        "labels": {**labels, "alertname": "Understudy", "event": event},
        "annotations": {"summary": text},
        "startsAt": now.isoformat(),
        "endsAt": (now + _STANDS).isoformat(),
    }
    return json.dumps([alert]).encode()


def _alerts_url(base: str) -> str:
    return f"{base.rstrip('/')}/api/v2/alerts" if base else ""


def _post(url: str, body: bytes) -> str:
    """Why it failed, twice; empty: it did not."""
    if not stays_inside(url):
        return "expected https, or http to loopback or a Service such as alertmanager.monitoring.svc, found another URL"
    headers = {"Content-Type": "application/json"}
    why = ""
    for pause_s in (0.0, _PAUSE_S):
        time.sleep(pause_s)
        try:
            call(url, body=body, headers=headers, limit_s=_LIMIT_S, most_bytes=_MOST_BYTES)
            return ""
        except Unanswered as error:
            why = str(error)
    return why
