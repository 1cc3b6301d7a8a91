"""The workers of a run over several processes: all addresses, and this process's index.

TensorFlow's resolvers find the addresses and the index in TF_CONFIG. If TF_CONFIG is not set, they
use Slurm's variables or Kubernetes.
"""

import dataclasses
import ipaddress
import os
import re
from collections.abc import Sequence

from trainer.distributed import kubernetes_pods
from trainer.errors import LostWorkerError, UserError


@dataclasses.dataclass(frozen=True)
class Worker:
    """A worker of a run: this process, and how to reach the other workers.

    Attributes:
      addresses: `host:port` of each worker, in the order of the replicas.
      index: index of this worker.
      secret: key by which the workers authenticate; may be empty if they are all on one machine.
    """

    addresses: tuple[str, ...]
    index: int
    secret: bytes = dataclasses.field(default=b"", repr=False)

    @property
    def chief(self) -> bool:
        """Whether this is the first worker, which decides for all and writes the run directory."""
        return self.index == 0

    @property
    def port(self) -> int:
        """Port on which this worker listens."""
        return self.at(self.index)[1]

    @property
    def local(self) -> bool:
        """Whether all workers are on this machine."""
        hosts = {self.at(index)[0] for index in range(len(self.addresses))}
        return len(self.addresses) == 1 or all(_is_loopback(host) for host in hosts)

    def at(self, index: int) -> tuple[str, int]:
        """Returns the host and the port of worker `index`; an IPv6 host has no brackets."""
        host, _, port = self.addresses[index].rpartition(":")
        return host.removeprefix("[").removesuffix("]"), int(port)

    def __str__(self) -> str:
        return self.name(self.index)

    def name(self, index: int) -> str:
        """Returns the name of worker `index` in messages."""
        return f"worker {index} ({self.addresses[index]})"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # A host name may belong to another machine.
        return False


def from_environment(timeout: float) -> Worker:
    """Returns the Worker of this process, without a secret, from the environment variables.

    Raises:
      LostWorkerError: if Kubernetes has not started all workers within ten times `timeout` seconds.
      UserError: if the variables are missing or wrong, or do not name this worker.
    """
    if "TF_CONFIG" in os.environ:
        return _from_tf_config()
    if "SLURM_STEP_NUM_TASKS" in os.environ:
        return _from_slurm()
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        try:
            found = kubernetes_pods.addresses(kubernetes_pods.client(), timeout)
            return _worker(*found, "Kubernetes")
        except TimeoutError as error:
            raise LostWorkerError(str(error)) from error
    raise UserError(
        "--strategy=multi_worker finds no other workers: neither TF_CONFIG nor Slurm's or "
        "Kubernetes' variables are set.\n"
        "Start the program with srun or scripts/launch_local.sh, or set TF_CONFIG."
    )


def _from_tf_config() -> Worker:
    # Importing TensorFlow takes four seconds, so the import is here, after the checks of the flags.
    import tensorflow as tf

    try:
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        jobs = resolver.cluster_spec().as_dict()
        if any(isinstance(tasks, dict) for tasks in jobs.values()):
            raise ValueError("its tasks are not numbered 0, 1, 2, and so on")
        kind, index = resolver.task_type, resolver.task_id
        # TF_CONFIG may list the chief apart from the workers; here, the chief becomes worker 0.
        addresses = [*jobs.pop("chief", []), *jobs.pop("worker", [])]
        own = resolver.cluster_spec().task_address(kind, index)
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"TF_CONFIG={os.environ['TF_CONFIG']} cannot be used: {error}.\n"
            'Write {"cluster": {"worker": ["host:port", ...]}, '
            '"task": {"type": "worker", "index": 0}}.'
        ) from error
    if jobs:
        raise UserError(
            f"TF_CONFIG has tasks of the type {min(jobs)!r}: write all tasks as workers."
        )
    return _worker(addresses, own, "TF_CONFIG")


def _from_slurm() -> Worker:
    try:
        addresses, own = _slurm_addresses()
    except (KeyError, ValueError, RuntimeError) as error:
        problem = f"lacks {error.args[0]}" if isinstance(error, KeyError) else f"is wrong: {error}"
        raise UserError(
            f"Slurm's environment {problem}.\nStart the program with srun, or set TF_CONFIG."
        ) from error
    return _worker(addresses, own, "Slurm's environment")


def _slurm_addresses() -> tuple[list[str], str]:
    """Returns the addresses of all workers, and of this one, from Slurm's variables."""
    import tensorflow as tf

    tasks = int(os.environ["SLURM_STEP_NUM_TASKS"])
    # Slurm assigns no ports, and jobs with consecutive ids may share a node. So a job's id
    # determines its range of 16 ports. All ports are below 32,768, Linux's first ephemeral port.
    first_port = 20_000 + int(os.environ["SLURM_JOB_ID"]) * 16 % 10_000
    # Slurm assigns the GPUs (--gpus-per-task), so the resolver's GPU options have no effect.
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
        port_base=first_port, gpus_per_node=tasks, gpus_per_task=1, auto_set_gpu=False
    )
    addresses = resolver.cluster_spec().job_tasks("worker")
    # The resolver sorts nodes by name (node10 before node9), and Slurm does not. So this task's
    # index follows from its address, not from Slurm's task number.
    port = first_port + int(os.environ["SLURM_LOCALID"])
    return addresses, f"{os.environ['SLURMD_NODENAME']}:{port}"


def _worker(addresses: Sequence[str], own: str, source: str) -> Worker:
    for address in addresses:
        found = re.fullmatch(r".+:(\d{1,5})", address)
        if found is None or not 0 < int(found[1]) < 2**16:
            raise UserError(f"{source} has the address {address!r}: write host:port.")
    if own not in addresses or len(set(addresses)) < len(addresses):
        raise UserError(
            f"{source} lists the workers {', '.join(addresses)}, and this process is {own}: "
            "list each worker once, this process included."
        )
    return Worker(tuple(addresses), list(addresses).index(own))
