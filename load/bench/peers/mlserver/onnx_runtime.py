"""Peer: MLServer with a runtime of its own kind that makes the same onnxruntime call."""

import bare
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class OnnxModel(MLModel):
    async def load(self):
        self._session_ = bare.Session(self.name, bare.MODELS[self.name])
        return True

    async def predict(self, payload):
        feed = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        output = NumpyCodec.encode_output("logits", self._session_.run(feed))
        return InferenceResponse(model_name=self.name, outputs=[output])
