"""``mlflow models serve`` on the demo's champion, as a user starts it."""

import base64
import io
import os
import sys
import urllib.error
from pathlib import Path

import pytest
from PIL import Image

from tests.command_line import environment_for
from tests.servers import free_ports, get, serving

pytestmark = pytest.mark.smoke


def test_mlflow_serves_the_champion(home):
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "--port", str(port)]
    command += ["--model-uri", "models:/scenes-smoke-latent_diffusion@champion", "--host", "127.0.0.1"]
    added = {"MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"}
    added["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # as in an activated environment
    environment = environment_for(home, **added)
    with serving(command, environment, (f"{url}/ping",)):
        rows = {"columns": ["prompt"], "data": [["small blue star"], ["large red circle top left"]]}
        asked = {"dataframe_split": rows, "params": {"seed": 3, "num_inference_steps": 2}}
        answers = [get(f"{url}/invocations", asked)["predictions"] for _ in range(2)]
        assert answers[0] == answers[1]
        pictures = [Image.open(io.BytesIO(base64.b64decode(row["image"], validate=True))) for row in answers[0]]
        assert [picture.size for picture in pictures] == [(32, 32)] * 2
        assert len({picture.tobytes() for picture in pictures}) == 2
        other = get(f"{url}/invocations", {**asked, "params": {"seed": 4, "num_inference_steps": 2}})["predictions"]
        assert other[0] != answers[0][0]
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(f"{url}/invocations", {"dataframe_split": {"columns": ["text"], "data": [["small blue star"]]}})
        assert "needs a column 'prompt'" in refused.value.read().decode()
