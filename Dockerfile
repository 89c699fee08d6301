# The training job as a container image. The base image chooses between CPU and NVIDIA GPUs.
#
#   CPU:          docker build -t hvd-dqn .
#   NVIDIA GPUs:  docker build -t hvd-dqn:gpu --build-arg BASE_IMAGE=nvidia/cuda:12.5.1-devel-ubuntu22.04 \
#                   --build-arg RUN_IMAGE=nvidia/cuda:12.5.1-base-ubuntu22.04 .
#                 (TensorFlow 2.18 is made for CUDA 12.5; the devel image brings nvcc and NCCL for Horovod, and without
#                 RUN_IMAGE it is also what runs, some gigabytes larger)
#
#   run:          docker run --rm hvd-dqn
#                 docker run --rm hvd-dqn horovodrun -np 2 python train.py --preset lunarlander
#                 docker run --rm --gpus all hvd-dqn:gpu
#   keep runs:    mkdir -p runs && docker run --rm -u "$(id -u):$(id -g)" -v "$PWD/runs:/app/runs" hvd-dqn
#   read-only:    docker run --rm --read-only --tmpfs /tmp -v "$PWD/runs:/app/runs" hvd-dqn
#   save, stop:   docker stop -t 60 CONTAINER    (with the default command or launch/local.sh)

ARG BASE_IMAGE=debian:bookworm-slim
ARG BUILD_IMAGE=${BASE_IMAGE}
ARG RUN_IMAGE=${BASE_IMAGE}
ARG EXTRAS="atari"

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
ARG EXTRAS
# First without the project: a change of its code does not compile Horovod again. Where there is nvcc, Horovod gets its
# NCCL operations and TensorFlow its CUDA libraries.
COPY Makefile pyproject.toml uv.lock ./
RUN if [ -x /usr/local/cuda/bin/nvcc ]; then \
        export HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_CUDA_HOME=/usr/local/cuda; extras="${EXTRAS} gpu"; \
    fi \
    && make setup EXTRAS="${extras:-${EXTRAS}}" UV_SYNC_FLAGS=--no-install-project
COPY README.md LICENSE train.py ./
COPY packaging packaging
COPY hvd_dqn hvd_dqn
COPY launch launch
RUN uv=$(echo .tools/uv-*/bin/uv) && "$uv" pip install --python .venv/bin/python --no-deps --editable .

# ---- the unit tests, in the same environment; an image whose tests fail is not made
FROM build AS test
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ARG EXTRAS
# --build-arg TESTS= leaves them out, for a commit whose tests have passed in the same environment outside.
ARG TESTS="tests/unit"
COPY tests tests
RUN if [ -z "${TESTS}" ]; then echo "not tested" > unit_tests.txt; exit; fi \
    && make setup EXTRAS="${EXTRAS} envpool dev" \
    && .venv/bin/python -m pytest ${TESTS} -q -n 2 -p no:cacheprovider | tee unit_tests.txt

# ---- without what only compilers need
FROM build AS slim
RUN rm -rf .tools build .venv/lib/python3.*/site-packages/tensorflow/include

# ---- what runs: the same release without compilers
FROM ${RUN_IMAGE}
ARG VERSION=0.2.0.dev0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="hvd_dqn" \
      org.opencontainers.image.description="Distributed Deep Q-Networks on Horovod" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# openssh-client: launchers reach the other hosts of a job through it.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates libstdc++6 openssh-client python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home trainer \
    && install -d -m 1777 /app/runs
WORKDIR /app
COPY --from=slim /app .
# What the unit tests printed; a copy of it, so that no builder leaves them out.
COPY --from=test /app/unit_tests.txt .
# Open MPI's fast copy between processes is refused by Docker's default seccomp profile and floods the log.
# HOME is a folder that every user may write, as images often run under the caller's own id, and that a read-only root
# leaves writable: horovodrun keeps a cache there.
ENV PATH=/app/.venv/bin:$PATH \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    HVD_DQN_HEARTBEAT_FILE=/tmp/hvd_dqn-heartbeat \
    OMPI_MCA_btl_vader_single_copy_mechanism=none
# trainer, not root: mpirun refuses root.
USER 1000
# Whether the job makes progress.
HEALTHCHECK --interval=1m --timeout=10s --start-period=2m --retries=2 CMD ["/app/launch/container/healthcheck"]
ENTRYPOINT []
CMD ["/app/launch/local.sh", "--preset", "cartpole"]
