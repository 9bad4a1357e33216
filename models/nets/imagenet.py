"""Classifiers of colour images: image [N,3,224,224] -> logits [N,1000]."""

from __future__ import annotations

import onnx

from nets.layers import RandomNet

IMAGE: tuple[str | int, ...] = ("N", 3, 224, 224)
CLASSES = 1000


def mobilenet_v2() -> onnx.ModelProto:
    """MobileNetV2 1.0 (Sandler et al., 2018): Conv, BatchNormalization and Clip."""
    net = RandomNet("mobilenet_v2", "MobileNetV2 1.0 224, random weights.")

    def block(
        x: str, channels: int, name: str, kernel: int, stride: int = 1, group: int = 1
    ) -> str:
        x = net.conv(x, channels, kernel, stride=stride, group=group, name=f"{name}.conv")
        return net.batch_norm(x, f"{name}.bn")

    x = net.relu6(block(net.features("image", IMAGE), 32, "stem", 3, stride=2))
    # expansion, channels, repeats, stride of the first
    stages = [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]
    for stage, (expansion, channels, repeats, first_stride) in enumerate(stages, 1):
        for repeat in range(repeats):
            name = f"stage{stage}.{repeat}"
            stride = first_stride if repeat == 0 else 1
            y, hidden = x, net.channels(x) * expansion
            if expansion > 1:
                y = net.relu6(block(y, hidden, f"{name}.expand", 1))
            y = net.relu6(block(y, hidden, f"{name}.depthwise", 3, stride, group=hidden))
            y = block(y, channels, f"{name}.project", 1)
            x = net.add(x, y) if repeat else y
    x = net.global_pool(net.relu6(block(x, 1280, "head", 1)))
    net.output(net.gemm(x, CLASSES, "logits"), ["N", CLASSES])
    return net.model()


def resnet18() -> onnx.ModelProto:
    """ResNet-18 (He et al., 2015): Conv, BatchNormalization and Relu."""
    net = RandomNet("resnet18", "ResNet-18 224, random weights.")

    def block(x: str, channels: int, name: str, kernel: int = 3, stride: int = 1) -> str:
        return net.batch_norm(net.conv(x, channels, kernel, stride=stride, name=name), f"{name}.bn")

    x = net.relu(block(net.features("image", IMAGE), 64, "stem", 7, stride=2))
    x = net.max_pool(x, 3, 2, pad=1)
    for stage, channels in enumerate((64, 128, 256, 512), 1):
        for repeat in range(2):
            name = f"stage{stage}.{repeat}"
            stride = 2 if stage > 1 and repeat == 0 else 1
            y = net.relu(block(x, channels, f"{name}.conv1", stride=stride))
            y = block(y, channels, f"{name}.conv2")
            if stride > 1:
                x = block(x, channels, f"{name}.shortcut", 1, stride)
            x = net.relu(net.add(y, x))
    net.output(net.gemm(net.global_pool(x), CLASSES, "logits"), ["N", CLASSES])
    return net.model()


def squeezenet() -> onnx.ModelProto:
    """SqueezeNet 1.1 (Iandola et al., 2016): biased Conv and Relu, Concat, pools in ceil mode."""
    net = RandomNet("squeezenet", "SqueezeNet 1.1 224, random weights.")

    def conv(x: str, channels: int, kernel: int, name: str) -> str:
        return net.relu(net.conv(x, channels, kernel, bias=True, name=name))

    image = net.features("image", IMAGE)
    x = net.relu(net.conv(image, 64, 3, stride=2, pads=[0] * 4, bias=True, name="stem"))
    # Squeezed and expanded channels of the fire modules between the pools.
    stages = [[(16, 64)] * 2, [(32, 128)] * 2, [(48, 192)] * 2 + [(64, 256)] * 2]
    for stage, fires in enumerate(stages, 1):
        x = net.max_pool(x, 3, 2, ceil=True)
        for number, (squeezed, expanded) in enumerate(fires):
            name = f"fire{stage}.{number}"
            x = conv(x, squeezed, 1, f"{name}.squeeze")
            x = net.concat(
                conv(x, expanded, 1, f"{name}.expand1"), conv(x, expanded, 3, f"{name}.expand3")
            )
    x = conv(x, CLASSES, 1, "classifier")
    pooled = net.op("GlobalAveragePool", x)
    net.output(net.op("Flatten", pooled, name="logits", axis=1), ["N", CLASSES])
    return net.model()
