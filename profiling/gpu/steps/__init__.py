"""Whole training steps and answers of networks, beside PyTorch and JAX.

__main__   measures comparisons, the most telling first, until the time is up
cases      what is compared, in which order, and what is aimed at
networks   the zoo's networks as every library can have them, and their batches
sides      a side: a step made again and again, and how it is timed
ours       gpucnn's sides: recorded, and as it stands
torch_side PyTorch's: eager, the whole step in a CUDA graph, torch.compile
jax_side   JAX's: one jitted function
compare    the first steps' losses, the times in turn, the memory
cold       a fresh process: import, build, the first step
training   time to an accuracy
page       the tables of a results file; picture draws them

gpucnn's recorded step is what every peer is held against; "gpucnn" as the peer is its own step that
is not recorded, "gpucnn dependent" the recorded one whose kernels may begin before those in front
of them have ended.
"""
