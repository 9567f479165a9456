"""Which published data sets are known by name, and where can I get them?"""

from __future__ import annotations

from dataclasses import dataclass

from maskanim_jax.errors import UserError


@dataclass(frozen=True)
class SetFacts:
    """The description of a data set; you must get the clips yourself."""

    name: str
    title: str
    homepage: str
    citation: str
    instructions: str


_LAYOUT = (
    "Put the clips into train/ and test/ of one folder: videos, gifs, folders of frames, or long images of square frames side by side. "
    "The part of a name before the first # is the identity."
)

SETS = {
    facts.name: facts
    for facts in (
        SetFacts(
            "taichi_hd",
            "Tai-Chi-HD: people doing Tai Chi, cut from videos by a published table of boxes",
            "https://github.com/AliaksandrSiarohin/first-order-model",
            "@inproceedings{siarohin2019first, title={First order motion model for image animation}, "
            "author={Siarohin, A. and Lathuiliere, S. and Tulyakov, S. and Ricci, E. and Sebe, N.}, booktitle={NeurIPS}, year={2019}}",
            f"Download the videos of the published table and cut them (or give the table with --boxes). {_LAYOUT}",
        ),
        SetFacts(
            "voxceleb_256",
            "VoxCeleb at 256 x 256: talking faces, cut from interviews by a published table of boxes",
            "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/",
            "@inproceedings{nagrani2017voxceleb, title={VoxCeleb: a large-scale speaker identification dataset}, "
            "author={Nagrani, A. and Chung, J. S. and Zisserman, A.}, booktitle={INTERSPEECH}, year={2017}}",
            f"Download the videos of the published table and cut them (or give the table with --boxes). {_LAYOUT}",
        ),
        SetFacts(
            "bair_256",
            "BAIR at 256 x 256: a robot arm pushing things, 30 frames per clip",
            "https://sites.google.com/view/sna-visual-mpc",
            "@inproceedings{ebert2017self, title={Self-supervised visual planning with temporal skip connections}, "
            "author={Ebert, F. and Finn, C. and Lee, A. X. and Levine, S.}, booktitle={CoRL}, year={2017}}",
            f"Get the clips as videos or folders of frames. {_LAYOUT}",
        ),
        SetFacts(
            "mgif",
            "MGif: moving gifs of cartoon animals, some with only two frames",
            "https://github.com/AliaksandrSiarohin/monkey-net",
            "@inproceedings{siarohin2019animating, title={Animating arbitrary objects via deep motion transfer}, "
            "author={Siarohin, A. and Lathuiliere, S. and Tulyakov, S. and Ricci, E. and Sebe, N.}, booktitle={CVPR}, year={2019}}",
            f"Get the gifs. {_LAYOUT}",
        ),
        SetFacts("video_folder", "Your own clips", "", "", _LAYOUT),
    )
}


def set_facts(name: str) -> SetFacts:
    """The description of a data set; raises UserError for an unknown name."""
    if name not in SETS:
        raise UserError(f"--name={name} is unknown; choose one of {', '.join(SETS)}")
    return SETS[name]
