"""The configuration: every amount is global, so the same values mean the same run at any number of ranks.

Field names are unique over the sections: they are the names of the command line's flags, of the keys of a
`--config` file and of the keys of `config.json`, all flat.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

RESUME_AUTO = "auto"
"""The value of --resume that means: go on with the run of this name if it can be gone on with, else start it."""

PresetName = Literal["cartpole", "lunarlander", "acrobot", "mountaincar", "maze"]


@dataclass(frozen=True)
class JobConfig:
    """The run: length, seed, directory, screen."""

    total_env_steps: int = 50_000
    """Env steps of the whole run, summed over all ranks' environments."""
    seed: int = 0
    """Seed of everything random; the same seed and number of ranks give the same run, bit for bit, on CPU."""
    runs_dir: str = "runs"
    """Folder below which run directories <env>/<name> are made."""
    name: str = ""
    """Name of the run directory; empty: date and time, chosen by rank 0."""
    resume: str = ""
    """Run directory to go on with, from its newest good checkpoint, or the checkpoint path of a run whose directory is
    elsewhere or lost; other flags override its configuration. auto: the run of this --name (or of this
    --checkpoint-path) if it has a checkpoint, else a new one, so that one command can be given again and again."""
    allow_missing_replay: bool = False
    """With --resume: take the newest checkpoint whose weights and state are whole, without the transitions of those
    segments that are damaged or gone. Not kept for later resumes."""
    checkpoint_path: str = ""
    """URL of this run's checkpoints in an object store (s3://bucket/run; gs://, az://; extras [s3], [gs], [az]) or a
    folder (file:///folder/run); empty: in the run directory. Credentials come from the environment alone."""
    log_period: int = 1_000
    """Global env steps between two lines of metrics (and checks that all ranks hold the same weights)."""
    checkpoint_period: int = 10_000
    """Global env steps between two checkpoints; a new best evaluation is checkpointed as well."""
    checkpoint_boundary: Literal["keep", "reset"] = "keep"
    """What a checkpoint does to open episodes. keep: nothing; a resumed run continues them, by replaying their actions
    or by get_state and set_state where an environment offers both. reset: it ends them, in the running job and in a
    resumed one: for environments that are not deterministic, and for exact resumes with EnvPool and Atari's native
    form, which cannot continue episodes."""
    keep_checkpoints: int = 3
    """Newest checkpoints kept on disk, beside the best one."""
    snapshot_period: int = 0
    """Global env steps between two snapshots in memory, which an elastic job restores when it loses a rank; 0: as many
    as cost 1 % of the time."""
    progress: Literal["auto", "live", "plain", "off"] = "auto"
    """Rank 0's display: live on a terminal, plain lines elsewhere (auto), or always one of them."""
    stall_timeout_seconds: float = 25.0
    """Seconds that a rank waits for the others before it ends the job with a message; 0 waits for ever."""
    time_limit: str = ""
    """Wall-clock limit in Slurm's forms (minutes, H:M:S, D-H:M:S), or slurm for what the allocation has left: the job
    saves and exits with code 75 before it. Empty: none."""
    time_reserve_seconds: float = 60.0
    """Seconds before the time limit at which the job begins to stop: at the next checkpoint, which keeps the run exact,
    or, if none is due in half that time, by saving then."""
    threads_per_rank: int = 0
    """Threads of TensorFlow's and BLAS' pools on each rank; 0: this host's cores shared by its ranks."""
    bind_to_cores: bool = True
    """Give each rank its own share of its host's cores, where the launcher has not bound it."""
    profile: bool = False
    """Write every rank's iterations as a trace for Perfetto, and Horovod's timeline, into the run directory."""
    device: Literal["auto", "cpu", "visible-gpu"] = "auto"
    """auto: of the GPUs that a rank sees, the one with its number on its host, else the CPU; cpu; visible-gpu: the
    first that it sees, where a scheduler shows each rank its own (or for ranks that share one)."""
    transport: Literal["auto", "shared-memory", "tcp", "mpi", "horovod"] = "auto"
    """What carries the gradients: horovod (anywhere), mpi (CPUs under an MPI launcher), tcp (CPUs of any hosts),
    shared-memory (CPUs of one host); auto takes the fastest."""


@dataclass(frozen=True)
class EnvironmentConfig:
    """The environments."""

    env: str = "CartPole-v1"
    """Any Gymnasium id; `module:Id` imports a third party's module, which registers the Id, first."""
    env_kwargs: str = "{}"
    """Keyword arguments of the environment, as a JSON object."""
    num_envs: int = 16
    """Environments stepped together, summed over ranks; each rank steps its share."""
    vectorization: Literal["auto", "native", "sync", "async", "envpool"] = "auto"
    """native: the environment's own vector form; sync: one loop; async: a process each; envpool: EnvPool's C++ twin of
    it (extra [envpool]); auto: native, else sync."""


@dataclass(frozen=True)
class NetworkConfig:
    """The Q-network."""

    network: Literal["auto", "mlp", "cnn"] = "auto"
    """mlp for vectors and Discrete observations, cnn (Mnih et al. 2015) for images; auto looks at the observation."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of the MLP's hidden layers (ReLU); none makes it linear. The CNN's sizes are fixed."""
    backend: Literal["auto", "numpy", "mixed", "tensorflow"] = "auto"
    """What computes the updates: numpy (compiled code or NumPy on the CPU, in float32), mixed (gradients by TensorFlow,
    the optimizer in host memory) or tensorflow (all in one graph, on any device); auto takes the fastest."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """What layers compute in; weights, last layer, loss, optimizer and the sum over ranks are float32 always. The
    halves are for GPUs with tensor cores, where a large network is then faster."""
    loss_scale: float = 1024.0
    """Power of two by which --precision float16 multiplies the loss, and divides the gradients, so that small ones do
    not vanish; lower it if gradients are not finite."""


@dataclass(frozen=True)
class ExplorationConfig:
    """Epsilon-greedy exploration."""

    epsilon_schedule: Literal["linear", "exponential", "per-episode"] = "linear"
    """linear and exponential decay over global env steps; per-episode multiplies once per finished episode."""
    epsilon_start: float = 1.0
    """Probability of a random action at the start."""
    epsilon_end: float = 0.04
    """Probability of a random action after the decay."""
    epsilon_decay_env_steps: int = 8_000
    """Global env steps over which linear and exponential schedules decay."""
    epsilon_decay_per_episode: float = 0.995
    """Factor of the per-episode schedule, per episode finished on any rank."""
    epsilon_ladder: bool = False
    """Give each environment i of N (over all ranks) epsilon ** (1 + 7 i / (N - 1)), Horgan et al. (2018)."""


@dataclass(frozen=True)
class ReplayConfig:
    """Experience replay."""

    replay_capacity: int = 50_000
    """Transitions kept, summed over ranks; each rank keeps its share."""
    learning_starts: int = 1_000
    """Global env steps before the first learner step (and after a resume, while the replay fills again)."""
    global_batch_size: int = 128
    """Transitions per learner step, summed over ranks; each rank draws its share from its own replay."""


@dataclass(frozen=True)
class LearnerConfig:
    """The learner."""

    train_period: int = 1
    """Global env steps per learner step."""
    learning_rate: float = 1e-3
    """Step size of the optimizer, before a weak scaling's rule is applied."""
    optimizer: Literal["adam", "rmsprop", "sgd"] = "adam"
    """adam (Keras' constants), rmsprop (centred, the constants of Mnih et al. 2015), or sgd."""
    loss: Literal["mse", "huber"] = "mse"
    """Loss of the TD error: mse (squared) or huber (quadratic up to 1, then linear)."""
    gamma: float = 0.99
    """Discount per env step."""
    double_dqn: bool = False
    """Let the online network choose the action that the target network values (van Hasselt et al. 2016)."""
    max_grad_norm: float = 10.0
    """Global L2 norm to which the averaged gradient is clipped; 0 turns clipping off."""
    skip_nonfinite: int = 0
    """Updates of the whole run, resumes included, that may be skipped on all ranks because their gradient is not
    finite; the next one ends the job. 0: the first one does."""
    target_update_period: int = 200
    """Learner steps between two copies of the online network to the target network."""
    policy_lag: Literal[0, 1] = 0
    """0: an action's policy has every update before it. 1: it lacks those of its own iteration, so that collecting
    and learning run side by side where a rank has a second core; the results are the same with and without one."""
    scaling: Literal["strong", "weak", "weak-sqrt", "weak-linear"] = "strong"
    """strong: amounts are global. weak: num_envs, global_batch_size, replay_capacity, learning_starts and
    train_period are multiplied by the number of ranks, the learning rate by 1, its square root, or itself."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Greedy evaluation."""

    evaluation_period: int = 2_500
    """Global env steps between two greedy evaluations; 0 turns them off (the final one stays)."""
    evaluation_episodes: int = 20
    """Episodes of a periodic evaluation, shared out over the ranks."""
    final_evaluation_episodes: int = 100
    """Episodes of the final evaluation of the best checkpoint, on seeds that were never used before."""


@dataclass(frozen=True)
class Config:
    """The whole configuration, in sections."""

    job: JobConfig = field(default_factory=JobConfig)
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


def flatten(config: Config) -> dict[str, Any]:
    """Returns all fields as one flat, JSON-ready mapping."""
    flat = {}
    for section in dataclasses.fields(config):
        flat.update(dataclasses.asdict(getattr(config, section.name)))
    return {name: list(value) if isinstance(value, tuple) else value for name, value in flat.items()}


def field_names() -> list[str]:
    """Returns the flat names of all fields."""
    return list(flatten(Config()))


def replace(config: Config, flat: dict[str, Any]) -> Config:
    """Returns a copy with the flat fields replaced; the names must be known and the values of the right type."""
    sections = {}
    for section in dataclasses.fields(config):
        part = getattr(config, section.name)
        own = {f.name: flat[f.name] for f in dataclasses.fields(part) if f.name in flat}
        sections[section.name] = dataclasses.replace(part, **own)
    return Config(**sections)
