"""The workers that are the pods of one indexed Kubernetes Job, by TensorFlow's own resolver.

A pod that failed is started again with another address, and some of the old ones may run on for a
while: only a name in a headless Service stays. So workers go by these names.

A pod learns from its manifest, by environment variables: JOB_NAME, WORKERS (how many there are),
POD_NAMESPACE and POD_NAME.
"""

import os
import time
from typing import Any

from trainer.errors import UserError

PORT = 8470
NAMES = ("JOB_NAME", "WORKERS", "POD_NAMESPACE", "POD_NAME")
_PAUSE = 1.0
_PATIENCE = (10.0, 10.0)  # to connect to the API and to hear from it, before it is asked again
# Times the timeout, which is for workers that run: others may still have no node, or be started
# again after the six minutes that are Kubernetes' longest back-off.
_LONGER = 10


class _RunningPods:
    """What TensorFlow's resolver asks of a client, for one Job.

    It would ask for the pods of all namespaces, which a Job may not see, refuse those that have
    ended, as a Job's that failed have, and take the address of a pod's host, on which the pod
    does not listen unless it shares the host's network.
    """

    def __init__(self, api: Any, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self.hosts: dict[str, str] = {}

    def list_pod_for_all_namespaces(self, label_selector: str) -> Any:
        """The running pods; their hosts, by the pods' names, are kept."""
        found = self._api.list_namespaced_pod(
            self._namespace,
            label_selector=label_selector,
            field_selector="status.phase=Running",
            _request_timeout=_PATIENCE,
        )
        self.hosts = {}
        for pod in found.items:
            name = pod.metadata.name
            if not (pod.spec.hostname and pod.spec.subdomain):
                raise UserError(
                    f"pod {name} has no name that others can call: make its Job\n"
                    "an indexed one with a headless Service, as in scripts/cluster/train_k8s.yaml."
                )
            self.hosts[name] = pod.status.host_ip = f"{pod.spec.hostname}.{pod.spec.subdomain}"
        return found


def client() -> Any:
    """Kubernetes' own, with the rights of this pod's service account: to list pods.

    Raises:
      UserError: where it is not installed, or this is no pod with such an account.
    """
    try:
        import kubernetes
    except ImportError as error:
        raise UserError(
            "on Kubernetes, the Python package kubernetes is needed to find the other workers:\n"
            "install Crescendo with the extra kubernetes, or set TF_CONFIG."
        ) from error
    try:
        kubernetes.config.load_incluster_config()
    except kubernetes.config.ConfigException as error:
        raise UserError(
            f"the pod's service account cannot be used: {error}.\n"
            "Give the pod one that may list pods, or set TF_CONFIG."
        ) from error
    return kubernetes.client.CoreV1Api()


def addresses(api: Any, timeout: float) -> tuple[list[str], str]:
    """Of all workers, once all of them run, and this one's.

    Args:
      api: of `client`.
      timeout: seconds after which a worker that runs counts as lost; the others get ten times as
        many to start.

    Raises:
      TimeoutError: where they do not within that time.
      UserError: where the pods may not be listed or have no names, or a variable is missing.
    """
    # TensorFlow takes four seconds to import, for which wrong flags need not wait.
    import kubernetes
    import tensorflow as tf
    import urllib3

    missing = [name for name in NAMES if name not in os.environ]
    if missing:
        raise UserError(
            f"the pod's environment lacks {', '.join(missing)}: set them in its manifest."
        )
    job, workers, namespace, own = (os.environ[name] for name in NAMES)
    if not workers.isdecimal():
        raise UserError(f"WORKERS={workers} in the pod's manifest: write the Job's parallelism.")
    pods = _RunningPods(api, namespace)
    resolver = tf.distribute.cluster_resolver.KubernetesClusterResolver(
        {"worker": [f"job-name={job}"]}, tf_server_port=PORT, override_client=pods
    )
    end = time.monotonic() + _LONGER * timeout
    while True:
        try:
            found = resolver.cluster_spec().as_dict().get("worker", [])
            state = f"{len(found)} pods of Job {job} run, and WORKERS={workers}"
            if len(found) == int(workers) and own in pods.hosts:
                return found, f"{pods.hosts[own]}:{PORT}"
        except kubernetes.client.ApiException as error:
            state = f"Kubernetes answers {error.status} {error.reason}"
            if error.status in (401, 403):
                raise UserError(
                    f"{state} to who lists the pods of the namespace {namespace}.\n"
                    "Give the pod's service account a Role as in scripts/cluster/train_k8s.yaml."
                ) from error
        except urllib3.exceptions.HTTPError as error:
            state = f"Kubernetes does not answer: {error}"
        if time.monotonic() >= end:
            raise TimeoutError(
                f"{state}, after {_LONGER * timeout:g} s.\n"
                "Make room for all, or give a longer --worker_timeout."
            )
        time.sleep(_PAUSE)
