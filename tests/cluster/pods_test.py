import types

import pytest

from trainer.cluster import pods
from trainer.config import UserError


class Api:
    """A Kubernetes client's one call, over pods that come one a call; sees what is asked."""

    def __init__(self, *found):
        self.found, self.asked = found, []

    def list_namespaced_pod(self, namespace, *, label_selector, field_selector):
        self.asked.append((namespace, label_selector, field_selector))
        running = [
            types.SimpleNamespace(
                metadata=types.SimpleNamespace(name=name),
                status=types.SimpleNamespace(phase="Running", host_ip="10.0.0.1", pod_ip=ip),
            )
            for name, ip in self.found[: len(self.asked)]
        ]
        return types.SimpleNamespace(items=running)


@pytest.fixture(autouse=True)
def manifest(monkeypatch):
    values = {"JOB_NAME": "long", "POD_NAMESPACE": "team", "POD_IP": "10.1.0.2", "WORKERS": "2"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_all_pods_of_the_job_in_one_order_once_they_run():
    api = Api(("long-1-xyz", "10.1.0.2"), ("long-0-abc", "10.1.0.1"))
    assert pods.addresses(api, 10.0) == (["10.1.0.1:8470", "10.1.0.2:8470"], "10.1.0.2:8470")
    assert api.asked == [("team", "job-name=long", "status.phase=Running")] * 2


def test_pods_that_do_not_come_are_not_waited_for_for_ever():
    with pytest.raises(UserError, match="1 pods of Job long run after 0 s, and WORKERS=2"):
        pods.addresses(Api(("long-0-abc", "10.1.0.1")), 0.0)


def test_what_the_manifest_lacks_is_named(monkeypatch):
    monkeypatch.delenv("WORKERS")
    with pytest.raises(UserError, match="lacks WORKERS"):
        pods.addresses(Api(), 0.0)
