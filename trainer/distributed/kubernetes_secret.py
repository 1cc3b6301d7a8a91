"""Creates a Kubernetes Secret, if it does not exist.

The workers of a Kubernetes Job authenticate to each other with this Secret.
scripts/cluster/train_k8s.yaml runs this module in another Job. The service account of that other
Job may only create Secrets. The workers' account may not create Secrets.

    python -m trainer.distributed.kubernetes_secret NAME
"""

import http
import os
import secrets
import sys
from typing import Any

from trainer.distributed import kubernetes_pods
from trainer.errors import ExitStatus, UserError

KEY = "secret"  # Name of the value in the Secret.


def make(api: Any, namespace: str, name: str) -> None:
    """Creates the Secret `name` with the Kubernetes client `api`, unless the Secret exists.

    Raises:
      UserError: if Kubernetes refuses the request or does not answer.
    """
    import kubernetes
    import urllib3

    body = {"metadata": {"name": name}, "stringData": {KEY: secrets.token_hex(32)}}
    try:
        timeout = kubernetes_pods.REQUEST_TIMEOUT
        api.create_namespaced_secret(namespace, body, _request_timeout=timeout)
    except kubernetes.client.ApiException as error:
        if error.status == http.HTTPStatus.CONFLICT:
            return  # The Secret exists.
        remedy = "Check the namespace and the name, or start the pod again later."
        if error.status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
            remedy = "Give the pod's service account a Role as in scripts/cluster/train_k8s.yaml."
        raise UserError(
            f"Kubernetes answers {error.status} {error.reason} to the request for a new Secret "
            f"{name} in the namespace {namespace}.\n{remedy}"
        ) from error
    except urllib3.exceptions.HTTPError as error:
        message = f"Kubernetes does not answer: {error}.\nStart the pod again later."
        raise UserError(message) from error


def main() -> int:
    """Creates the Secret in the namespace POD_NAMESPACE; returns the exit status."""
    if len(sys.argv) != 2 or "POD_NAMESPACE" not in os.environ:
        command = "python -m trainer.distributed.kubernetes_secret NAME"
        print(f"usage: POD_NAMESPACE=... {command}", file=sys.stderr)
        return ExitStatus.USER_ERROR
    try:
        make(kubernetes_pods.client(), os.environ["POD_NAMESPACE"], sys.argv[1])
    except UserError as error:
        print(f"kubernetes_secret: {error}", file=sys.stderr)
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
