"""The paper's settings at 256 x 256, and every switch that the other configs turn. One comment a field."""

from __future__ import annotations

from ml_collections import ConfigDict

from maskanim_jax.errors import UserError

FIVE_TAPS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
READINGS = ("paper", "released")


def get_config() -> ConfigDict:
    """The paper's reading (Shalev and Wolf, section 3 and 3.1). Values that the paper leaves open are the released code's."""
    c = ConfigDict()
    c.name = "common"
    c.reading = "paper"  # which of the two documents the settings follow
    c.system = "perturbed_masks"  # a folder under maskanim_jax/systems
    c.seed = 0  # all randomness derives from (seed, step)

    c.frame_size = 256  # frames are square
    c.batch_size = 16  # of all devices and processes together
    c.precision = "float32"  # or bfloat16: activations of the convs; parameters, statistics and losses stay float32

    c.cpu_devices = 1  # without an accelerator: a batch is split over so many CPU devices, one core each

    c.data = data = ConfigDict()
    data.shards = ""  # folder that `python -m input_pipeline.prepare` wrote
    data.sampling = "identity"  # an epoch is identities x repeats, or "clip": one pass over the clips
    data.repeats = 150  # draws of each identity in an epoch
    data.threads = 2  # threads that read and decode
    data.time_flip = 0.5  # probability of swapping source and driver
    data.mirror = 0.5  # probability of mirroring both, when not swapped
    data.brightness = 0.1  # colour jitter A: factor from U[1 - x, 1 + x]
    data.contrast = 0.1
    data.saturation = 0.1
    data.hue = 0.1  # shift from U[-x, x], in turns of the hue circle
    data.own_jitter = 1.0  # the driver's own draw of A has these ranges times this; 1: the paper's
    data.own_negative = 0.0  # departs from the paper: probability that the driver alone is turned into its negative
    data.puppets = ConfigDict()  # the embedded set; rendered when identities > 0 and the shards are missing
    data.puppets.train_identities = 0
    data.puppets.test_identities = 0
    data.puppets.clips_per_identity = 1
    data.puppets.frames = 24
    data.puppets.seed = 0

    c.mask = mask = ConfigDict()  # network m
    mask.size = 64  # masks and everything at low resolution
    mask.width = 32
    mask.blocks = 5
    mask.max_width = 1024
    mask.temperature = 0.1  # the logits are divided by it
    mask.normalise_logits = False  # departs from the paper: batch norm without affine on the logits
    mask.logit_offset = 0.0  # taken off the normalised logits: a larger one means a smaller mask
    mask.area = 0.0  # departs from the paper: weight of a loss on m, the part of each mask's mean above mask.area_free
    mask.area_free = 0.25  # share of the picture that a mask may cover without cost
    mask.border = "zero"  # 7x7 conv without padding, then 3 zeros around; "same": padded conv, no border

    c.refine = refine = ConfigDict()  # network r
    refine.width = 64
    refine.blocks = 5
    refine.max_width = 1024
    refine.temperature = 0.1
    refine.start_epoch = 1  # counted from 0: r starts after the first epoch

    c.coarse = coarse = ConfigDict()  # network l; its up blocks are log2(frame_size / mask.size)
    coarse.width = 256
    coarse.residual_blocks = 6

    c.fine = fine = ConfigDict()  # network h
    fine.width = 64
    fine.blocks = 5
    fine.max_width = 1024

    c.perturb = perturb = ConfigDict()
    perturb.strips = 6  # P_train cuts the mask into so many
    perturb.cut_low = 15 / 64  # cuts are drawn from this share of the mask's side
    perturb.cut_high = 45 / 64
    perturb.scale = 0.25  # strips and the whole are scaled by U[1 - x, 1 + x]
    perturb.threshold = "median"  # rho of P_train: of each mask, or a number from 0 to 255, as text
    perturb.noise = 20.0  # lambda of the Poisson noise, in 255ths
    perturb.test_threshold = "median"  # rho of P_test, the same way
    perturb.test_scale = 0.75  # resize of P_test

    c.loss = loss = ConfigDict()
    loss.scales = (256, 128, 64)  # sides of the perceptual pyramid
    loss.coarse_scales = (256, 128, 64)  # the same for the coarse frame
    loss.taps = ("relu1_1", "relu2_1", "relu3_1")  # the first, third and fifth ReLU of VGG-19
    loss.perceptual = 10.0
    loss.mask = 100.0
    loss.vgg = "imagenet"  # or "untrained": random features, said so in log and report

    c.optim = optim = ConfigDict()
    optim.learning_rate = 2e-4
    optim.beta1 = 0.5
    optim.beta2 = 0.9
    optim.epochs = 100
    optim.decay_epochs = (60, 90)
    optim.decay = 0.1
    optim.mask_rate = 1.0  # m's learning rate as a share of the others'
    optim.warmup_steps = 0  # linear, from 0
    optim.cosine_steps = 0  # the rate follows a cosine to 0 at this step; 0: it does not
    optim.max_steps = 0  # ends training earlier; 0: never
    optim.max_minutes = 0.0  # of training in one process; 0: never

    c.train = train = ConfigDict()
    train.log_every = 50  # steps
    train.picture_every = 1000
    train.eval_clips = 16  # held-out clips measured before each checkpoint
    train.eval_frames = 8  # frames of each
    train.checkpoint_every = 1000
    train.keep = 2  # last checkpoints kept beside the best

    c.reconstruct = reconstruct = ConfigDict()
    reconstruct.checkpoint = "best"  # or "last"
    reconstruct.clips = 0  # of the test split; 0: all

    c.animate = animate = ConfigDict()
    animate.pairs = 4  # test clips that --mode=animate animates by another identity
    animate.options = (
        ConfigDict()
    )  # of the system, as `python -m maskanim_jax.animate` has them: threshold, mask_scale, ablation
    return c


def start(reading: str) -> ConfigDict:
    """The common config in the "paper" or the "released" reading; raises UserError for another name."""
    c = get_config()
    if reading not in READINGS:
        raise UserError(f"a config's argument is {' or '.join(READINGS)}, not '{reading}'")
    if reading == "released":
        c.reading = reading
        c.loss.scales = c.loss.coarse_scales = (256, 128, 64, 32)
        c.optim.beta2 = 0.999
    return c
