"""Runs on each host of a TPU slice: TensorFlow's server, and the input pipeline of the host.

    python -m scripts.tpu.tpu_host 8470

One host also runs the training program, which drives the servers of all hosts. It tells each host
which examples to read, and each host then makes the batches of its own replicas. Heartbeats go to
the port that is 10 above. Anyone who reaches the port can use the host, so only the slice's private
network may reach it. `tpu_worker.sh host` starts this script with the variables that libtpu needs.
"""

import os
import sys

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # Hides TensorFlow's start-up messages.

import tensorflow as tf

from trainer.distributed import hosts
from trainer.distributed.host_monitor import Programs
from trainer.system import output
from trainer.training.host import HostService


def main(port: int) -> None:
    """Serves on `port` until the process is ended."""
    output.log_to(None)
    # Only the server computes on the TPU. The input pipeline needs none.
    tf.config.set_visible_devices([], "TPU")
    programs = Programs()
    service = HostService(programs.admitted)
    functions = hosts.serve(service.ask, service.make)
    cluster = {"worker": [f"localhost:{port}"]}
    server = tf.distribute.Server(cluster, job_name="worker", task_index=0)
    programs.listen(port)
    output.log(f"this host serves on port {port}")
    server.join()
    del functions  # TensorFlow can call the functions only while this exists.


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].isdecimal():
        sys.exit("usage: python -m scripts.tpu.tpu_host PORT")
    main(int(sys.argv[1]))
