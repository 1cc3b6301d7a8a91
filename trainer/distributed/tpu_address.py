"""Names the TPU of a run: by name, zone and project, or by the addresses of its hosts."""

import dataclasses

from trainer.config.flags import Config


@dataclasses.dataclass(frozen=True)
class TpuAddress:
    """Name, zone and project of a TPU; the name `local` means the TPU of this machine.

    The name may also be the addresses of a slice's hosts, such as 10.0.0.2:8470,10.0.0.3:8470.
    """

    name: str
    zone: str | None
    project: str | None

    @property
    def local(self) -> bool:
        return self.name == "local"

    @property
    def hosts(self) -> list[str]:
        """Addresses of the hosts of the slice; [] if `name` is a name."""
        return self.name.split(",") if "," in self.name else []

    def __str__(self) -> str:
        if self.hosts:
            return f"the slice of {len(self.hosts)} hosts"
        return "the TPU of this machine" if self.local else f"TPU {self.name}"

    def gcloud(self, verb: str) -> str:
        """Returns the gcloud command that applies `verb`, for example delete, to this TPU."""
        place = f"--zone={self.zone} --project={self.project}"
        return f"`gcloud compute tpus tpu-vm {verb} {self.name} {place}`"


def address(config: Config) -> TpuAddress | None:
    """Returns the TPU that `config` names; None if the run does not use a TPU."""
    if config.strategy != "tpu" or config.tpu is None:
        return None
    return TpuAddress(config.tpu, config.tpu_zone, config.tpu_project)


def hosts_of(config: Config) -> list[str]:
    """Returns the addresses of the hosts of the slice that `config` names; [] if it names none."""
    tpu = address(config)
    return tpu.hosts if tpu else []
