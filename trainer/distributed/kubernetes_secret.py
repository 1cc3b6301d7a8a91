"""Makes the Kubernetes Secret by which a Job's workers know each other, unless it is there.

scripts/cluster/train_k8s.yaml runs it before them, with a service account that may only create
Secrets: the workers' own cannot.

    python -m trainer.distributed.kubernetes_secret NAME
"""

import os
import secrets
import sys
from typing import Any

from trainer.distributed import kubernetes_pods
from trainer.errors import ExitStatus, UserError

KEY = "secret"  # its name in the Secret
_CONFLICT = 409
_PATIENCE = (10.0, 10.0)  # to connect to the API and to hear from it


def make(api: Any, namespace: str, name: str) -> None:
    """Creates the Secret `name`; one that is there stays as it is.

    Args:
      api: as `pods.client` returns it.
      namespace: of the pod.
      name: of the Secret.

    Raises:
      UserError: if Kubernetes refuses, or does not answer.
    """
    import kubernetes
    import urllib3

    body = {"metadata": {"name": name}, "stringData": {KEY: secrets.token_hex(32)}}
    try:
        api.create_namespaced_secret(namespace, body, _request_timeout=_PATIENCE)
    except kubernetes.client.ApiException as error:
        if error.status != _CONFLICT:
            raise UserError(
                f"Kubernetes answers {error.status} {error.reason} to a new Secret {name} in the "
                f"namespace {namespace}.\n"
                "Give the pod's service account a Role as in scripts/cluster/train_k8s.yaml."
            ) from error
    except urllib3.exceptions.HTTPError as error:
        raise UserError(
            f"Kubernetes does not answer: {error}.\nStart the pod again once it does."
        ) from error


def main() -> int:
    """Returns the exit status; the namespace comes from POD_NAMESPACE."""
    if len(sys.argv) != 2 or "POD_NAMESPACE" not in os.environ:
        print(
            "usage: POD_NAMESPACE=... python -m trainer.distributed.kubernetes_secret NAME",
            file=sys.stderr,
        )
        return ExitStatus.USER_ERROR
    try:
        make(kubernetes_pods.client(), os.environ["POD_NAMESPACE"], sys.argv[1])
    except UserError as error:
        print(f"pod_secret: {error}", file=sys.stderr)
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
