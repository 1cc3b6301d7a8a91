"""Finds the workers among the pods of one indexed Kubernetes Job, with TensorFlow's own resolver.

Kubernetes replaces a failed pod by a new pod with another IP address. With a headless Service, the
new pod has the same host name. So this module uses host names as the workers' addresses.

The Job's manifest sets the environment variables JOB_NAME, WORKERS (the number of workers),
POD_NAMESPACE and POD_NAME of each pod.
"""

import os
import time
from typing import Any

from trainer.errors import UserError

PORT = 8470
NAMES = ("JOB_NAME", "WORKERS", "POD_NAMESPACE", "POD_NAME")
REQUEST_TIMEOUT = (10.0, 10.0)  # Seconds to connect to the API, and to wait for its answer.
_PAUSE = 1.0
# All pods must start within this multiple of --worker_timeout. A pod may first have to wait for a
# node. After failures, Kubernetes may wait up to six minutes before it starts a pod again.
_START_FACTOR = 10


class _RunningPods:
    """Client for TensorFlow's resolver that lists only the running pods of one namespace.

    With Kubernetes' own client, the resolver would list the pods of all namespaces, but a Job's
    account may not do that. The resolver would also fail if some pods have ended. It would return
    the addresses of the pods' nodes, and not those of the pods.
    """

    def __init__(self, api: Any, namespace: str) -> None:
        self._api, self._namespace = api, namespace
        self.hosts: dict[str, str] = {}

    def list_pod_for_all_namespaces(self, label_selector: str) -> Any:
        """Returns the running pods; stores the host name of each in `hosts`, by the pod's name."""
        pods = self._api.list_namespaced_pod(
            self._namespace,
            label_selector=label_selector,
            field_selector="status.phase=Running",
            _request_timeout=REQUEST_TIMEOUT,
        )
        self.hosts = {}
        for pod in pods.items:
            name = pod.metadata.name
            if not (pod.spec.hostname and pod.spec.subdomain):
                raise UserError(
                    f"pod {name} has no host name that other pods can reach.\nMake its Job "
                    "indexed, with a headless Service, as in scripts/cluster/train_k8s.yaml."
                )
            # The resolver returns `host_ip`, the address of the node. This line replaces it.
            self.hosts[name] = pod.status.host_ip = f"{pod.spec.hostname}.{pod.spec.subdomain}"
        return pods


def client() -> Any:
    """Returns Kubernetes' own client, with the rights of this pod's service account.

    Raises:
      UserError: if the package kubernetes is not installed, or the account cannot be used.
    """
    try:
        import kubernetes
    except ImportError as error:
        raise UserError(
            "the package kubernetes, which finds the other workers, is not installed.\n"
            "Install Crescendo with the extra kubernetes, or set TF_CONFIG."
        ) from error
    try:
        kubernetes.config.load_incluster_config()
    except kubernetes.config.ConfigException as error:
        raise UserError(
            f"the pod's service account cannot be used: {error}.\n"
            "Give the pod an account that may list pods, or set TF_CONFIG."
        ) from error
    return kubernetes.client.CoreV1Api()


def addresses(api: Any, timeout: float) -> tuple[list[str], str]:
    """Waits until all workers run; returns all their addresses, and this worker's address.

    Args:
      api: the result of `client`.
      timeout: value of --worker_timeout, in seconds.

    Raises:
      TimeoutError: if not all workers run within ten times `timeout`.
      UserError: if this pod may not list pods, a pod has no host name, or an environment variable
        is missing or wrong.
    """
    # Importing TensorFlow takes four seconds, so the import is here, after the checks of the flags.
    import kubernetes
    import tensorflow as tf
    import urllib3

    missing = [name for name in NAMES if name not in os.environ]
    if missing:
        raise UserError(f"the pod's manifest lacks {', '.join(missing)}: set these variables.")
    job, workers, namespace, own = (os.environ[name] for name in NAMES)
    if not workers.isdecimal():
        raise UserError(
            f"WORKERS={workers} in the pod's manifest is not a number: set it to the Job's "
            "parallelism."
        )
    pods = _RunningPods(api, namespace)
    resolver = tf.distribute.cluster_resolver.KubernetesClusterResolver(
        {"worker": [f"job-name={job}"]}, tf_server_port=PORT, override_client=pods
    )
    end = time.monotonic() + _START_FACTOR * timeout
    while True:
        try:
            running = resolver.cluster_spec().as_dict().get("worker", [])
            state = f"{len(running)} pods of Job {job} run, and WORKERS={workers}"
            if len(running) == int(workers) and own in pods.hosts:
                return running, f"{pods.hosts[own]}:{PORT}"
        except kubernetes.client.ApiException as error:
            state = f"Kubernetes answers {error.status} {error.reason}"
            if error.status in (401, 403):
                raise UserError(
                    f"{state} to the request for the pods of the namespace {namespace}.\n"
                    "Give the pod's service account a Role as in scripts/cluster/train_k8s.yaml."
                ) from error
        except urllib3.exceptions.HTTPError as error:
            state = f"Kubernetes does not answer: {error}"
        if time.monotonic() >= end:
            raise TimeoutError(
                f"{state}, after {_START_FACTOR * timeout:g} s.\n"
                "Make room for all pods, or give a longer --worker_timeout."
            )
        time.sleep(_PAUSE)
