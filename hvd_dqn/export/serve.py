"""Serves the greedy actions of an exported network: uvicorn --app-dir FOLDER serve:app --port 8000.

Its folder holds model.onnx and model.json. It needs fastapi, uvicorn, onnxruntime and numpy.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from fastapi import Body, FastAPI, HTTPException

FOLDER = Path(__file__).parent
ABOUT = json.loads((FOLDER / "model.json").read_text())
SESSION = onnxruntime.InferenceSession(FOLDER / ABOUT["file"])
app = FastAPI(title=f"{ABOUT['algorithm']} on {ABOUT['env']}")


def checked(name: str, value: Any, shape: list[int], dtype: str, categories: int = 0) -> np.ndarray:
    """Returns a part of a request as an array, or answers 422 with the reason."""
    try:
        array = np.array(value, dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise HTTPException(422, f"{name}: {error}") from None
    if list(array.shape) != shape:
        raise HTTPException(422, f"{name}: its shape is {list(array.shape)}, and {shape} is needed")
    if not np.isfinite(array).all() or (categories and not 0 <= array < categories):
        raise HTTPException(422, f"{name}: a number in it is out of range")
    return array


@app.get("/")
def about() -> dict[str, Any]:
    """Returns what is served: environment, shape of an observation, number of actions."""
    return ABOUT


@app.post("/act")
def act(observation: Annotated[Any, Body()], action_mask: Annotated[Any, Body()] = None) -> dict[str, Any]:
    """Returns the greedy action, a number or one for each joint, and all action values; null for invalid actions."""
    inputs = {"observation": checked("observation", observation, **ABOUT["observation"])[None]}
    if ABOUT["action_mask"]:
        inputs["action_mask"] = checked("action_mask", action_mask, [ABOUT["actions"]], "int8")[None]
    values = SESSION.run(None, inputs)[0][0]
    known = values.astype(object)
    known[~np.isfinite(values)] = None
    return {"action": values.argmax(axis=-1).tolist(), "action_values": known.tolist()}
