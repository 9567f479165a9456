"""Which fields make a config of the puppets so small that its training takes seconds?"""

SHRUNK = {
    "frame_size": 32, "mask.size": 16, "mask.num_blocks": 2, "refine.num_blocks": 2, "fine.num_blocks": 2, "coarse.width": 8,
    "coarse.residual_blocks": 1, "loss.pyramid_sizes": (32,), "loss.coarse_pyramid_sizes": (16,), "loss.vgg": "untrained",
    "loss.vgg_layers": ("relu1_1",),
    "data.puppets.train_identities": 6, "data.puppets.validation_identities": 2, "data.puppets.test_identities": 2,
    "data.puppets.frames": 6, "data.num_repeats": 8, "optim.max_steps": 20, "optim.cosine_steps": 20,
    "train.log_every": 5, "train.checkpoint_every": 10, "train.image_every": 10, "animate.pairs": 1,
}  # fmt: skip
