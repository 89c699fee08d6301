# The training job as a container image. The base images choose between CPU and NVIDIA GPUs.
#
#   CPU:          docker build -t hvd-dqn .
#   NVIDIA GPUs:  docker build -t hvd-dqn:gpu \
#                   --build-arg BUILD_IMAGE=nvidia/cuda:12.5.1-devel-ubuntu22.04 \
#                   --build-arg RUN_IMAGE=nvidia/cuda:12.5.1-base-ubuntu22.04 .
#                 (TensorFlow 2.18 is made for CUDA 12.5; the devel image brings nvcc and NCCL for Horovod)
#
#   run:          docker run --rm hvd-dqn
#                 docker run --rm hvd-dqn horovodrun -np 2 python train.py --preset lunarlander
#                 docker run --rm --gpus all hvd-dqn:gpu
#   keep runs:    mkdir -p runs && docker run --rm -u "$(id -u):$(id -g)" -v "$PWD/runs:/app/runs" hvd-dqn
#   save, stop:   docker stop -t 60 CONTAINER    (with the default command or launch/local.sh)

ARG BUILD_IMAGE=debian:bookworm-slim
ARG RUN_IMAGE=debian:bookworm-slim

# ---- the environment, with Horovod compiled in it
FROM ${BUILD_IMAGE} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# Versions come from the base image's release; what decides results is pinned by uv.lock.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates g++ make python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
ARG EXTRAS="atari"
# First without the project: a change of its code does not compile Horovod again. Where there is nvcc, Horovod gets its
# NCCL operations and TensorFlow its CUDA libraries.
COPY Makefile pyproject.toml uv.lock ./
RUN if [ -x /usr/local/cuda/bin/nvcc ]; then \
        export HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_CUDA_HOME=/usr/local/cuda; extras="${EXTRAS} gpu"; \
    fi \
    && make setup EXTRAS="${extras:-${EXTRAS}}" UV_SYNC_FLAGS=--no-install-project
COPY . .
RUN uv=$(echo .tools/uv-*/bin/uv) && "$uv" pip install --python .venv/bin/python --no-deps --editable .

# ---- what runs: the same release without compilers
FROM ${RUN_IMAGE}
# openssh-client: launchers reach the other hosts of a job through it.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates libstdc++6 openssh-client python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --no-create-home --home-dir /home/trainer trainer \
    && install -d -m 1777 /home/trainer /app/runs
WORKDIR /app
COPY --from=build /app/.venv .venv
COPY . .
# Open MPI's fast copy between processes is refused by Docker's default seccomp profile and floods the log.
# HOME and MPLCONFIGDIR are writable for every user, as images often run under the caller's own id.
ENV PATH=/app/.venv/bin:$PATH \
    HOME=/home/trainer \
    MPLCONFIGDIR=/tmp/matplotlib \
    OMPI_MCA_btl_vader_single_copy_mechanism=none
# trainer, not root: mpirun refuses root.
USER 1000
ENTRYPOINT []
CMD ["/app/launch/local.sh", "--preset", "cartpole"]
