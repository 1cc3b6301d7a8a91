"""The workers that are the pods of one Kubernetes Job, by TensorFlow's own resolver.

A pod learns from its manifest, by environment variables: JOB_NAME, WORKERS (how many there are),
POD_NAMESPACE and POD_IP.
"""

import os
import time
from typing import Any

from trainer.config import UserError

PORT = 8470
_NAMES = ("JOB_NAME", "POD_NAMESPACE", "POD_IP", "WORKERS")
_PAUSE = 1.0


class _RunningPods:
    """What TensorFlow's resolver asks of a client, for one Job.

    It would ask for the pods of all namespaces, which a Job may not see, refuse those that have
    ended, as a Job's that failed have, and take the address of a pod's host, on which the pod
    does not listen unless it shares the host's network.
    """

    def __init__(self, api: Any, namespace: str) -> None:
        self._api = api
        self._namespace = namespace

    def list_pod_for_all_namespaces(self, label_selector: str) -> Any:
        """The running pods."""
        found = self._api.list_namespaced_pod(
            self._namespace, label_selector=label_selector, field_selector="status.phase=Running"
        )
        for pod in found.items:
            pod.status.host_ip = pod.status.pod_ip
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
            "install it, or set TF_CONFIG."
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

    Raises:
      UserError: where they do not within `timeout` seconds, or a variable is missing.
    """
    # TensorFlow takes four seconds to import, for which wrong flags need not wait.
    import tensorflow as tf

    missing = [name for name in _NAMES if name not in os.environ]
    if missing:
        raise UserError(
            f"the pod's environment lacks {', '.join(missing)}: set them in its manifest."
        )
    job, namespace, address, workers = (os.environ[name] for name in _NAMES)
    resolver = tf.distribute.cluster_resolver.KubernetesClusterResolver(
        {"worker": [f"job-name={job}"]},
        tf_server_port=PORT,
        override_client=_RunningPods(api, namespace),
    )
    end = time.monotonic() + timeout
    while True:
        found = resolver.cluster_spec().as_dict().get("worker", [])
        if len(found) == int(workers):
            return found, f"{address}:{PORT}"
        if time.monotonic() >= end:
            raise UserError(
                f"{len(found)} pods of Job {job} run after {timeout:g} s, and WORKERS={workers}.\n"
                "Make room for all, or give a longer --worker_timeout."
            )
        time.sleep(_PAUSE)
