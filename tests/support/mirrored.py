"""Two states of a run, each copied to a bucket, with the deletion of what the second does not need.

python -m tests.support.mirrored FOLDER URL GENERATION
"""

import pathlib
import sys

from tests.support.mirrors import write
from trainer.buckets import client, url
from trainer.run_dir.mirror import Mirror

if __name__ == "__main__":
    folder, place, generation = sys.argv[1:]
    run = pathlib.Path(folder)
    mirror = Mirror(client.connect(url.parse(place)), run, int(generation))
    for update in (1, 2):
        write(run, update)
        mirror.copy()
        mirror.clean()
