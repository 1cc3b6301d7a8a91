"""Creates the Kubernetes Secret with which a Job's workers authenticate, if it does not exist.

scripts/cluster/train_k8s.yaml runs this module before the workers, with a service account that may
only create Secrets. The workers' own account cannot create Secrets.

    python -m trainer.distributed.kubernetes_secret NAME
"""

import os
import secrets
import sys
from typing import Any

from trainer.distributed import kubernetes_pods
from trainer.errors import ExitStatus, UserError

KEY = "secret"  # key of the value in the Secret
_CONFLICT = 409
_REQUEST_TIMEOUT = (10.0, 10.0)  # seconds to connect to the API, and to wait for its answer


def make(api: Any, namespace: str, name: str) -> None:
    """Creates the Secret `name`; if it exists already, it stays unchanged.

    Args:
      api: the result of `kubernetes_pods.client`.
      namespace: the pod's namespace.
      name: the Secret's name.

    Raises:
      UserError: if Kubernetes refuses the request or does not answer.
    """
    import kubernetes
    import urllib3

    body = {"metadata": {"name": name}, "stringData": {KEY: secrets.token_hex(32)}}
    try:
        api.create_namespaced_secret(namespace, body, _request_timeout=_REQUEST_TIMEOUT)
    except kubernetes.client.ApiException as error:
        if error.status != _CONFLICT:
            raise UserError(
                f"Kubernetes answers {error.status} {error.reason} to the request for a new Secret "
                f"{name} in the namespace {namespace}.\n"
                "Give the pod's service account a Role as in scripts/cluster/train_k8s.yaml."
            ) from error
    except urllib3.exceptions.HTTPError as error:
        raise UserError(
            f"Kubernetes does not answer: {error}.\nStart the pod again later."
        ) from error


def main() -> int:
    """Creates the Secret in the namespace POD_NAMESPACE; returns the exit status."""
    if len(sys.argv) != 2 or "POD_NAMESPACE" not in os.environ:
        print(
            "usage: POD_NAMESPACE=... python -m trainer.distributed.kubernetes_secret NAME",
            file=sys.stderr,
        )
        return ExitStatus.USER_ERROR
    try:
        make(kubernetes_pods.client(), os.environ["POD_NAMESPACE"], sys.argv[1])
    except UserError as error:
        print(f"kubernetes_secret: {error}", file=sys.stderr)
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
