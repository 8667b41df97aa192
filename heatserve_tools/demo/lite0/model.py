"""EfficientNet-Lite0, as TorchServe instantiates it: one class, no arguments."""

from efficientnet_lite_pytorch import EfficientNet, get_model_params


class EfficientNetLite0(EfficientNet):
    """The layers and parameter names of efficientnet-lite0, without its weights."""

    def __init__(self) -> None:
        blocks, overall = get_model_params("efficientnet-lite0", override_params=None)
        super().__init__(blocks, overall)
