"""What do the configs of all systems share? Frames, data, loss, optimiser,
training, evaluation, animation.

Each field has a comment. Fields of one system are in `configs/perturbed_masks.py` and
`configs/fomm_base.py`.
"""

from __future__ import annotations

from ml_collections import ConfigDict

FIVE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


def get_config() -> ConfigDict:
    """The shared fields; a system's own config sets `system` and adds its networks."""
    c = ConfigDict()
    c.name = "common"
    c.reference = "paper"  # which document the settings follow: the paper, or the authors' released code
    c.system = ""  # a folder under maskanim_jax/systems
    c.seed = 0  # all randomness derives from (seed, step)

    c.frame_size = 256  # frames are square
    c.batch_size = 16  # total over all devices and processes
    c.precision = "float32"  # or bfloat16, for the convs' activations; parameters, statistics and losses stay float32

    c.remat = False  # recomputes activations in the backward pass: less memory, about a third more operations

    c.init_from = (
        ""  # start a new run from these networks: a workdir, one of its checkpoints, or a name such as puppets
    )
    c.init_skip = ()  # networks and tensors (name prefixes) that are initialised nevertheless
    c.init_grow = ()  # networks and tensors (name prefixes) that may have more channels than there

    c.num_cpu_devices = 1  # without an accelerator: devices that share a batch; 0: 1 with compiled convs, else 2

    c.data = data = ConfigDict()
    data.shards = ""  # folder that `python -m input_pipeline.prepare` wrote
    data.sampling = "identity"  # an epoch is identities x num_repeats pairs; "clip": one pass over the clips
    data.num_repeats = 150  # pairs per identity and epoch
    data.num_threads = 2  # that read and decode
    data.prefetch = 2  # batches that wait on the devices while a step runs
    data.max_bad_fraction = 0.0  # share of the split's frames that may be damaged; their pairs are redrawn
    data.swap_prob = 0.5  # probability of swapping source and driver
    data.flip_prob = 0.5  # probability of mirroring both, if they were not swapped
    data.brightness = 0.1  # colour jitter A: factor from U[1 - x, 1 + x]
    data.contrast = 0.1
    data.saturation = 0.1
    data.hue = 0.1  # shift from U[-x, x], in turns of the hue circle
    data.puppets = ConfigDict()  # the drawn data set; rendered when identities > 0 and the shards are missing
    data.puppets.version = 1  # of the drawing; 2: varied bodies and clothes. 1 for saved configs without this field
    data.puppets.train_identities = 0
    data.puppets.validation_identities = 0  # they choose the best checkpoint; 0: the test identities do
    data.puppets.test_identities = 0
    data.puppets.clips_per_identity = 1
    data.puppets.frames = 24
    data.puppets.seed = 0

    c.loss = loss = ConfigDict()
    loss.pyramid_sizes = (256, 128, 64)  # sides of the perceptual pyramid
    loss.vgg_layers = ("relu1_1", "relu2_1", "relu3_1")  # the first, third and fifth ReLU of VGG-19
    loss.perceptual = 10.0
    loss.vgg = "imagenet"  # or "untrained": random features, with a note in log and report

    c.optim = optim = ConfigDict()
    optim.learning_rate = 2e-4
    optim.beta1 = 0.5
    optim.beta2 = 0.9
    optim.epochs = 100
    optim.decay_epochs = (60, 90)
    optim.decay = 0.1
    optim.warmup_steps = 0  # linear, from 0
    optim.cosine_steps = 0  # the learning rate follows a cosine to 0 at this step; 0: no cosine
    optim.grad_accum_steps = 1  # microbatches per step; batch statistics are per microbatch
    optim.ema = 0.0  # decay of averaged weights, used by evaluation and animation, such as 0.999; 0: no averages
    optim.max_steps = 0  # stop at this step; 0: no limit
    optim.patience = 0  # stop after this many steps without a lower held-out L1; 0: never
    optim.max_minutes = 0.0  # time limit of one process; 0: no limit

    c.train = train = ConfigDict()
    train.log_every = 50  # steps
    train.image_every = 1000
    train.num_eval_clips = 16  # held-out clips evaluated before each checkpoint
    train.eval_frames = 8  # frames of each held-out clip
    train.checkpoint_every = 1000
    train.max_to_keep = 2  # newest checkpoints kept, in addition to the best

    c.reconstruct = reconstruct = ConfigDict()
    reconstruct.checkpoint = "best"  # or "last"
    reconstruct.split = "test"  # or "validation"
    reconstruct.clips = 0  # number of clips; 0: all
    reconstruct.backends = ()  # landmark and identity networks for AKD, MKR, AED, CSIM, see docs/metrics.md

    c.animate = animate = ConfigDict()
    animate.pairs = 4  # number of test clips that --mode=animate drives by another identity
    animate.pairs_csv = ""  # instead: a published table distance,source,driving,frame of clip names
    animate.options = ConfigDict()  # the system's options of `python -m maskanim_jax.animate`: threshold, motion, ...
    return c
