"""What every system's config has: frames, data, loss, optimiser, training, use. One comment a field.

The rest is each system's own: `configs/perturbed_masks.py`, `configs/fomm_base.py`.
"""

from __future__ import annotations

from ml_collections import ConfigDict

FIVE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


def get_config() -> ConfigDict:
    """Values that the systems share; a system's own config sets `system` and adds its networks."""
    c = ConfigDict()
    c.name = "common"
    c.reference = "paper"  # which document the settings follow: the paper, or the authors' released code
    c.system = ""  # a folder under maskanim_jax/systems
    c.seed = 0  # all randomness derives from (seed, step)

    c.frame_size = 256  # frames are square
    c.batch_size = 16  # of all devices and processes together
    c.precision = "float32"  # or bfloat16: activations of the convs; parameters, statistics and losses stay float32

    c.remat = (
        False  # computes a network's activations again in the backward pass: less memory, about a third more operations
    )

    c.init_from = (
        ""  # a fresh run starts from these networks: a workdir, one of its checkpoints, or a name such as puppets
    )
    c.init_skip = ()  # networks and tensors, or beginnings of their names, that get fresh values all the same

    c.num_cpu_devices = 1  # without an accelerator: they share a batch; 0: 1 with compiled convs, else 2

    c.data = data = ConfigDict()
    data.shards = ""  # folder that `python -m input_pipeline.prepare` wrote
    data.sampling = "identity"  # an epoch is identities x repeats, or "clip": one pass over the clips
    data.num_repeats = 150  # draws of each identity in an epoch
    data.num_threads = 2  # threads that read and decode
    data.prefetch = 2  # batches that lie ready on the devices while a step runs
    data.max_bad_fraction = 0.0  # share of the split's frames that may be damaged; pairs with one are drawn again
    data.swap_prob = 0.5  # probability of swapping source and driver
    data.flip_prob = 0.5  # probability of mirroring both, when not swapped
    data.brightness = 0.1  # colour jitter A: factor from U[1 - x, 1 + x]
    data.contrast = 0.1
    data.saturation = 0.1
    data.hue = 0.1  # shift from U[-x, x], in turns of the hue circle
    data.puppets = ConfigDict()  # the embedded set; rendered when identities > 0 and the shards are missing
    data.puppets.version = 1  # of the drawing, 1 for a saved config without the field; 2: builds and clothes differ
    data.puppets.train_identities = 0
    data.puppets.validation_identities = 0  # choose the checkpoint while training; 0: the test identities do
    data.puppets.test_identities = 0
    data.puppets.clips_per_identity = 1
    data.puppets.frames = 24
    data.puppets.seed = 0

    c.loss = loss = ConfigDict()
    loss.pyramid_sizes = (256, 128, 64)  # sides of the perceptual pyramid
    loss.vgg_layers = ("relu1_1", "relu2_1", "relu3_1")  # the first, third and fifth ReLU of VGG-19
    loss.perceptual = 10.0
    loss.vgg = "imagenet"  # or "untrained": random features, said so in log and report

    c.optim = optim = ConfigDict()
    optim.learning_rate = 2e-4
    optim.beta1 = 0.5
    optim.beta2 = 0.9
    optim.epochs = 100
    optim.decay_epochs = (60, 90)
    optim.decay = 0.1
    optim.warmup_steps = 0  # linear, from 0
    optim.cosine_steps = 0  # the rate follows a cosine to 0 at this step; 0: it does not
    optim.grad_accum_steps = 1  # a step's batch is worked off in so many parts; batch statistics are those of each part
    optim.ema = 0.0  # decay of averaged weights, which evaluation and animation then use, such as 0.999; 0: none
    optim.max_steps = 0  # ends training earlier; 0: never
    optim.max_minutes = 0.0  # of training in one process; 0: never

    c.train = train = ConfigDict()
    train.log_every = 50  # steps
    train.image_every = 1000
    train.num_eval_clips = 16  # held-out clips measured before each checkpoint
    train.eval_frames = 8  # frames of each
    train.checkpoint_every = 1000
    train.max_to_keep = 2  # last checkpoints kept beside the best

    c.reconstruct = reconstruct = ConfigDict()
    reconstruct.checkpoint = "best"  # or "last"
    reconstruct.split = "test"  # or "validation"
    reconstruct.clips = 0  # of the split; 0: all
    reconstruct.backends = ()  # landmark and identity networks for AKD, MKR, AED, CSIM: docs/metrics.md

    c.animate = animate = ConfigDict()
    animate.pairs = 4  # test clips that --mode=animate animates by another identity
    animate.pairs_csv = (
        ""  # instead: a table distance,source,driving,frame of clip names, as the authors published theirs
    )
    animate.options = (
        ConfigDict()
    )  # of the system, as `python -m maskanim_jax.animate` has them: threshold, motion, ...
    return c
