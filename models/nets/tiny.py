"""Networks for microcontrollers, shaped as in MLPerf Tiny (Banbury et al., 2021), and a U-Net."""

from __future__ import annotations

from typing import Any

import onnx

from nets.layers import RandomNet


class _TinyNet(RandomNet):
    """A `RandomNet` of convolutions, each followed by BatchNormalization and Relu."""

    def block(self, x: str, channels: int, name: str, kernel: int = 3, stride: int = 1) -> str:
        x = self.conv(x, channels, kernel, stride=stride, name=f"{name}.conv")
        return self.relu(self.batch_norm(x, f"{name}.bn"))

    def separable(self, x: str, channels: int, name: str, stride: int = 1) -> str:
        """A 3x3 depthwise block and a 1x1 block."""
        count = self.channels(x)
        x = self.conv(x, count, 3, stride=stride, group=count, name=f"{name}.depthwise.conv")
        x = self.relu(self.batch_norm(x, f"{name}.depthwise.bn"))
        return self.block(x, channels, f"{name}.pointwise", 1)

    def probabilities(self, x: str, classes: int) -> None:
        """Gemm and Softmax as the model's output."""
        logits = self.gemm(x, classes, "logits")
        self.output(self.op("Softmax", logits, name="probabilities", axis=-1), ["N", classes])


def ds_cnn() -> onnx.ModelProto:
    """DS-CNN, keyword spotting: mfcc [N,1,49,10] -> probabilities [N,12]."""
    net = _TinyNet("ds_cnn", "DS-CNN keyword spotting, 12 words, random weights.")
    mfcc = net.features("mfcc", ["N", 1, 49, 10])
    x = net.conv(mfcc, 64, (10, 4), stride=2, pads=[4, 1, 5, 1], name="stem.conv")
    x = net.relu(net.batch_norm(x, "stem.bn"))
    for number in range(1, 5):
        x = net.separable(x, 64, f"block{number}")
    mean = net.op("AveragePool", x, kernel_shape=[25, 5], strides=[25, 5])
    net.probabilities(net.pooled(x, mean), 12)
    return net.model()


def mobilenet_v1() -> onnx.ModelProto:
    """MobileNetV1 0.25 96, visual wake words: image [N,3,96,96] -> probabilities [N,2]."""
    net = _TinyNet("mobilenet_v1", "MobileNetV1 0.25 96, visual wake words, random weights.")
    x = net.block(net.features("image", ["N", 3, 96, 96]), 8, "stem", stride=2)
    plan = [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2)]
    for number, (channels, stride) in enumerate([*plan, (256, 1)], 1):
        x = net.separable(x, channels, f"block{number}", stride)
    net.probabilities(net.global_pool(x), 2)
    return net.model()


def resnet8() -> onnx.ModelProto:
    """ResNet-8, image classification: image [N,3,32,32] -> probabilities [N,10]."""
    net = _TinyNet("resnet8", "ResNet-8 for 32x32 images, random weights.")
    x = net.block(net.features("image", ["N", 3, 32, 32]), 16, "stem")
    for stage, channels in enumerate((16, 32, 64), 1):
        name, stride = f"stage{stage}", 1 if stage == 1 else 2
        y = net.block(x, channels, f"{name}.1", stride=stride)
        y = net.batch_norm(net.conv(y, channels, 3, name=f"{name}.2.conv"), f"{name}.2.bn")
        if stride > 1:
            x = net.conv(x, channels, 1, stride=stride, bias=True, name=f"{name}.shortcut")
        x = net.relu(net.add(y, x))
    net.probabilities(net.global_pool(x), 10)
    return net.model()


def autoencoder() -> onnx.ModelProto:
    """Fully connected autoencoder, anomaly detection: spectrum [N,640] -> rebuilt [N,640]."""
    net = RandomNet("autoencoder", "Autoencoder 640-128-8-128-640, random weights.")
    x = net.features("spectrum", ["N", 640])
    for number, features in enumerate([128] * 4 + [8] + [128] * 4, 1):
        x = net.relu(net.batch_norm(net.gemm(x, features, f"fc{number}"), f"bn{number}"))
    net.output(net.gemm(x, 640, "rebuilt"), ["N", 640])
    return net.model()


def unet() -> onnx.ModelProto:
    """U-Net (Ronneberger et al., 2015): image [N,3,128,128] -> mask [N,1,128,128] in 0..1.

    Its three ways up are the three that exporters write: ConvTranspose, linear and nearest Resize.
    """
    net = _TinyNet("unet", "Small U-Net, segmentation of 128x128 images, random weights.")

    def double(x: str, channels: int, name: str) -> str:
        return net.block(net.block(x, channels, f"{name}.1"), channels, f"{name}.2")

    def resize(x: str, **attributes: Any) -> str:
        scales = net.constant([1, 1, 2, 2])
        return net.derive(net.op("Resize", x, "", scales, **attributes), x)

    x = net.features("image", ["N", 3, 128, 128])
    skips = []
    for level, channels in enumerate((16, 32, 64), 1):
        skips.append(double(x, channels, f"down{level}"))
        x = net.max_pool(skips[-1], 2, 2)
    x = double(x, 128, "bottom")
    x = double(net.concat(net.up_conv(x, 64, name="up3.conv"), skips[2]), 64, "up3")
    x = resize(x, mode="linear", coordinate_transformation_mode="half_pixel")
    x = double(net.concat(x, skips[1]), 32, "up2")
    x = resize(x, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    x = double(net.concat(x, skips[0]), 16, "up1")
    logits = net.conv(x, 1, 1, bias=True, name="logits")
    net.output(net.op("Sigmoid", logits, name="mask"), ["N", 1, 128, 128])
    return net.model()
