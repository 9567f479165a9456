"""How is a trained run evaluated?"""
