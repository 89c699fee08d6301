"""The configuration. All amounts are global, so the same values give the same run on any number of ranks.

Field names are unique across the sections. They are the flags of the command line, and the keys of a `--config` file
and of `config.json`, which have no sections. The docstrings are the help texts.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, get_type_hints

RESUME_AUTO = "auto"
"""Value of --resume: resume the run of this --name if it has a checkpoint, otherwise start it."""


@dataclass(frozen=True)
class JobConfig:
    """The run: length, seed, directory, checkpoints."""

    total_env_steps: int = 50_000
    """Length of the run in env steps, summed over all environments."""
    seed: int = 0
    """Seed of all random numbers. The same seed and number of ranks give the same run bit for bit on CPUs."""
    runs_dir: str = "runs"
    """Folder in which the run directories <env>/<name> are created."""
    name: str = ""
    """Name of the run directory. Empty: the date and time."""
    resume: str = ""
    """Run to resume from its newest usable checkpoint: its run directory or its checkpoint path. Other flags override
    its configuration. auto: resume the run of this --name (or --checkpoint-path) if it has a checkpoint, otherwise
    start it, so that the same command can be repeated."""
    allow_missing_replay: bool = False
    """With --resume: accept a checkpoint with damaged or missing replay segments, and leave out their transitions.
    Applies to this start only."""
    checkpoint_path: str = ""
    """URL where the run's checkpoints are stored: an object store (s3://bucket/run, gs://, az://; extras [s3], [gs],
    [az]) or a folder (file:///folder/run). Empty: the run directory. Credentials are read from the environment."""
    log_period: int = 1_000
    """Env steps between two lines of metrics, and between two checks that all ranks hold the same weights."""
    checkpoint_period: int = 10_000
    """Env steps between two checkpoints. A new best evaluation is checkpointed, too."""
    checkpoint_boundary: Literal["keep", "reset"] = "keep"
    """keep: episodes stay open across a checkpoint, and a resumed run continues them by replaying their actions, or by
    get_state and set_state if the environment has both. reset: a checkpoint ends all episodes, which makes resumes
    exact with environments that are not deterministic, EnvPool, and Atari's native form."""
    keep_checkpoints: int = 3
    """Number of newest checkpoints to retain, in addition to the best one."""
    track: Literal["none", "wandb", "mlflow", "both"] = "none"
    """Send metrics to Weights & Biases or MLflow while training (extras [wandb], [mlflow]). A resumed run continues the
    tracked one. Servers and keys are read from the environment (WANDB_..., MLFLOW_TRACKING_URI)."""


@dataclass(frozen=True)
class EnvironmentConfig:
    """The environments."""

    env: str = "CartPole-v1"
    """Gymnasium id. `module:Id` and `./file.py:Id` first import what registers the Id; a class may take its place."""
    env_kwargs: str = "{}"
    """Keyword arguments of the environment, as a JSON object."""
    action_bins: int = 0
    """Bins of each number of a Box action, equally spaced from its lower to its upper bound, with --algorithm decqn. 0:
    the actions are Discrete or MultiDiscrete."""
    num_envs: int = 16
    """Number of parallel environments, summed over ranks."""
    vectorization: Literal["auto", "native", "sync", "async", "envpool"] = "auto"
    """native: the environment's own vector form. sync: one loop. async: one process per environment. envpool: EnvPool's
    C++ version (extra [envpool]). auto: native if there is one, otherwise sync. The task is the same."""
    protocol: Literal["own", "dopamine", "nature"] = "own"
    """How games of Atari are played. dopamine: an action is repeated with probability 0.25 (Machado et al. 2018).
    nature: up to 30 no-ops first, and a lost life ends the task in training (Mnih et al. 2015). Both: 4 frames per env
    step, at most 108,000 per episode, clipped rewards, and an --evaluation-epsilon of 0.001 or 0.05. own: as the
    environment is registered."""
    clip_rewards: bool = False
    """Learn from rewards clipped to -1..1 (Mnih et al. 2015). Returns in metrics and evaluations are not clipped."""


@dataclass(frozen=True)
class NetworkConfig:
    """The Q-network."""

    network: str = "auto"
    """mlp: for vectors and Discrete observations. cnn: for images (Mnih et al. 2015). minatar: for images of a few
    pixels, such as 10 x 10 (Young and Tian 2019). impala: residual, for images (Espeholt et al. 2018), six times the
    work of cnn. module:function or ./file.py:function: a function of your own that takes a NetworkSpec and returns
    a Keras model. auto: mlp, cnn or minatar, by observation."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of the MLP's hidden layers (ReLU). No values: a linear network. The sizes of the others are fixed."""
    impala_width: int = 1
    """Factor of the channels of impala."""
    layer_norm: bool = False
    """Normalise the features of impala's sections and of its last hidden layer (Ba et al. 2016)."""
    spectral_norm: bool = False
    """Divide the kernels of impala's residual blocks by their largest singular value (Miyato et al. 2018)."""
    dueling: bool = False
    """One stream for the state's value, one for the actions' advantages, each with its own last hidden layer (Wang et
    al. 2016)."""
    noisy: bool = False
    """Explore by learned noise on the dense layers' weights (Fortunato et al. 2018); set --epsilon-start and
    --epsilon-end to 0 with it. Greedy evaluation uses the mean weights."""
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
    """linear, exponential: decay over env steps. per-episode: multiply by a factor after each episode."""
    epsilon_start: float = 1.0
    """Probability of a random action at the start."""
    epsilon_end: float = 0.04
    """Probability of a random action at the end of the decay."""
    epsilon_decay_env_steps: int = 8_000
    """Env steps over which the linear and exponential schedules decay."""
    epsilon_decay_per_episode: float = 0.995
    """Factor of the per-episode schedule, applied after each episode of any rank."""
    epsilon_ladder: bool = False
    """Use epsilon ** (1 + 7 i / (N - 1)) in environment i of N, counted over all ranks (Horgan et al. 2018)."""


@dataclass(frozen=True)
class ReplayConfig:
    """Experience replay."""

    replay: str = "uniform"
    """uniform: samples all stored transitions with equal probability. prioritized: samples those with a large error
    more often, and weights their losses less (Schaul et al. 2016), as one buffer of all ranks would. module:Class or
    ./file.py:Class: a class of your own, as hvd_dqn/replay/base.py describes it."""
    priority_exponent: float = 0.5
    """Exponent of a transition's priority in its probability, of prioritized. 0: uniform."""
    importance_exponent: float = 0.4
    """Exponent of the weights that correct for unequal probabilities, of prioritized. 1: fully corrected."""
    importance_rise_env_steps: int = 0
    """Env steps over which --importance-exponent rises to 1. 0: it stays."""
    replay_capacity: int = 50_000
    """Capacity of the replay buffer in transitions, summed over ranks."""
    stacked_frames: int = 0
    """Frames that an observation stacks along its last axis (the first, of images with channels first), newest last.
    Replay and checkpoints hold each frame once. 0: find out, for Atari and FrameStackObservation. 1: none."""
    learning_starts: int = 1_000
    """Env steps before the first learner step, at least n_step in each environment. Applies again after a resume
    without replay. A run that is shorter than the default learns in its second half."""
    global_batch_size: int = 128
    """Transitions per learner step, summed over ranks. Each rank samples its share from its own replay."""


@dataclass(frozen=True)
class AlgorithmConfig:
    """The algorithm."""

    algorithm: str = "dqn"
    """dqn: Q-learning with a target network (Mnih et al. 2015). munchausen: soft targets with a log-policy bonus
    (Vieillard et al. 2020). c51: distributions over atoms (Bellemare et al. 2017). hl-gauss: classification of the
    target (Farebrother et al. 2024). qr: quantile regression (Dabney et al. 2018). iqn: quantiles at random fractions
    (Dabney et al. 2018). munchausen-iqn: both. decqn: a value for each joint of MultiDiscrete actions, or of Box ones
    with --action-bins (Seyde et al. 2023). module:Class or ./file.py:Class: a class of your own, as
    hvd_dqn/algorithms/base.py describes it."""
    double: bool = False
    """The online network selects the action that the target network evaluates (van Hasselt et al. 2016)."""
    loss: Literal["mse", "huber"] = "mse"
    """Loss of the TD error, of dqn, munchausen and decqn. mse: squared. huber: quadratic up to 1, then linear."""
    gamma: float = 0.99
    """Discount per env step."""
    n_step: int = 1
    """Env steps whose rewards are summed before the value of the next observation (Sutton 1988)."""
    atoms: int = 51
    """Atoms of c51, bins of hl-gauss."""
    value_min: float = -10.0
    """Lowest discounted return that c51 and hl-gauss can represent."""
    value_max: float = 10.0
    """Highest discounted return that c51 and hl-gauss can represent."""
    quantiles: int = 51
    """Quantiles of qr; fractions per update of iqn."""
    munchausen_bonus: float = 0.9
    """Factor of munchausen's log-policy in the target."""
    munchausen_temperature: float = 0.03
    """Temperature of munchausen's softmax policy, in units of the return."""
    munchausen_floor: float = -1.0
    """Least value of temperature times log-policy that munchausen adds."""


@dataclass(frozen=True)
class LearnerConfig:
    """The learner."""

    learner: Literal["auto", "tensorflow", "native"] = "auto"
    """tensorflow: any algorithm and network on any device; Horovod sums the gradients. native: C code for dqn with an
    MLP on CPUs; MPI sums the gradients. auto: native if it can run the job, otherwise tensorflow. A resumed run keeps
    its learner."""
    train_period: int = 1
    """Env steps per learner step."""
    learning_rate: float = 1e-3
    """Learning rate of the optimizer, before the rule of --scaling is applied."""
    learning_rate_end: float = 1.0
    """Factor to which the learning rate falls linearly over the run. 1: it is constant."""
    optimizer: Literal["adam", "rmsprop", "sgd"] = "adam"
    """adam: with Keras' constants. rmsprop: centred, with the constants of Mnih et al. (2015). sgd."""
    optimizer_epsilon: float = 0.0
    """Epsilon in the divisor of adam and rmsprop. 0: the optimizer's own, 1e-7 of adam, 0.01 of rmsprop."""
    max_grad_norm: float = 10.0
    """L2 norm to which the global gradient is clipped. 0: no clipping."""
    skip_nonfinite: int = 0
    """Number of updates with a non-finite gradient to skip in the whole run, resumes included. The next one ends the
    job."""
    target_update_period: int = 200
    """Learner steps between two copies of the online to the target network."""
    policy_lag: Literal[0, 1] = 0
    """1: act with the weights from before the current iteration's updates, so that collecting and learning overlap on
    a rank with two cores. The results do not depend on the number of cores. 0: no lag."""
    scaling: Literal["strong", "weak", "weak-sqrt", "weak-linear"] = "strong"
    """strong: amounts are global. weak, weak-sqrt, weak-linear: multiply num_envs, global_batch_size, replay_capacity,
    learning_starts and train_period by the number of ranks, and the learning rate by 1, its square root, or it."""


@dataclass(frozen=True)
class StrategyConfig:
    """How ranks learn together."""

    strategy: Literal["allreduce", "local", "ps-sync", "ps-async"] = "allreduce"
    """How ranks learn together. allreduce: all apply the sum of their gradients. ps-sync: parameter servers do, with
    the same result. ps-async: parameter servers apply each worker's gradient as it arrives. local: each rank makes its
    learner steps alone, and the ranks average weights and optimizer state every --sync-period steps (Stich 2019), for
    slow links."""
    sync_period: int = 16
    """Learner steps of each rank between two averages of --strategy local, rounded up to whole iterations where an
    iteration makes fewer."""
    servers: int = 1
    """ps-sync and ps-async: ranks that are parameter servers, the last ones of the job. Each holds a part of the
    weights and of the optimizer's state."""
    max_staleness: int = -1
    """ps-async: updates that a worker may be ahead of the slowest one (Ho et al. 2013). 0: the same as ps-sync. -1: no
    limit."""
    staleness_lr: Literal["none", "inverse"] = "none"
    """ps-async: inverse divides the learning rate of a gradient by its staleness (Zhang et al. 2016), the updates since
    its worker received the weights."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Greedy evaluation."""

    evaluation_period: int = 2_500
    """Env steps between two greedy evaluations. 0: only the final one."""
    evaluation_episodes: int = 20
    """Episodes of a periodic evaluation, summed over ranks."""
    evaluation_step_limit: int = 27_000
    """Steps after which an episode of an evaluation is cut off, so that one that never ends cannot hold up the job;
    27,000 steps are half an hour of an Atari game. 0: no limit."""
    evaluation_epsilon: float = 0.0
    """Probability of a random action in evaluations. 0: greedy."""
    record_period: int = 0
    """Env steps between two films of the agent in videos/ and TensorBoard (extra [video]). A process of its own on the
    host of rank 0 plays and draws one episode, at the lowest priority; training does not wait for it. 0: none."""
    final_evaluation_episodes: int = 100
    """Episodes of the final evaluation of the best checkpoint, with seeds not used before."""


@dataclass(frozen=True)
class RuntimeConfig:
    """Hosts, processes and time."""

    device: Literal["auto", "cpu", "visible-gpu"] = "auto"
    """auto: the GPU with the rank's local number, or the CPU without GPUs. cpu. visible-gpu: the first visible GPU, for
    schedulers that show each rank only its own, or for ranks that share one."""
    threads_per_rank: int = 0
    """Threads of TensorFlow and BLAS on each rank. 0: the cores of the host divided by its ranks."""
    bind_to_cores: bool = True
    """Bind each rank to its share of the host's cores, unless the launcher has already bound it."""
    profile: bool = False
    """Write a Perfetto trace of every rank, and Horovod's timeline, to the run directory."""
    progress: Literal["auto", "live", "plain", "off"] = "auto"
    """Progress display of rank 0. auto: live on a terminal, one line in a notebook, otherwise plain lines. off: no
    progress, only the start report, the closing summary and messages."""
    stall_timeout_seconds: float = 25.0
    """Seconds that a rank waits for another before it ends the job with a message. 0: no limit."""
    time_limit: str = ""
    """Wall-clock limit, before which the job saves and exits with code 75: minutes, H:M:S or D-H:M:S, or slurm for the
    time left in the allocation. Empty: no limit."""
    time_reserve_seconds: float = 60.0
    """Seconds before the time limit at which the job starts to stop. It stops at the next checkpoint, or saves and
    stops after half of this time if no checkpoint is due by then."""
    snapshot_period: int = 0
    """Elastic jobs: env steps between two in-memory snapshots, from which the job continues when it loses a rank. 0:
    chosen so that snapshots take 1 % of the time."""


@dataclass(frozen=True)
class Config:
    """The whole configuration, in sections."""

    job: JobConfig = field(default_factory=JobConfig)
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    @property
    def env_steps_before_learning(self) -> int:
        """Returns learning_starts, or the env steps until each environment's first n-step transition is complete."""
        return max(self.replay.learning_starts, self.algorithm.n_step * self.environment.num_envs)


def flatten(config: Config) -> dict[str, Any]:
    """Returns all fields as one flat, JSON-ready mapping."""
    flat = {}
    for section in dataclasses.fields(config):
        flat.update(dataclasses.asdict(getattr(config, section.name)))
    return {name: list(value) if isinstance(value, tuple) else value for name, value in flat.items()}


def field_names() -> list[str]:
    """Returns the flat names of all fields."""
    return list(flatten(Config()))


def field_types() -> dict[str, Any]:
    """Returns the type of each field by its flat name."""
    types: dict[str, Any] = {}
    for section in dataclasses.fields(Config()):
        types |= get_type_hints(type(getattr(Config(), section.name)))
    return types


def replace(config: Config, flat: dict[str, Any]) -> Config:
    """Returns a copy with some fields replaced. Ignores unknown names; values must have the field's type."""
    sections = {}
    for section in dataclasses.fields(config):
        part = getattr(config, section.name)
        own = {f.name: flat[f.name] for f in dataclasses.fields(part) if f.name in flat}
        sections[section.name] = dataclasses.replace(part, **own)
    return Config(**sections)


FIXED_ON_RESUME = {
    "env": "the run was trained on it; start a new run for another",
    "env_kwargs": "the transitions in its replay are those of another task; start a new run",
    "action_bins": "its actions are numbers of bins; start a new run",
    "protocol": "the transitions in its replay are those of another task; start a new run",
    "algorithm": "its weights mean something else to another one; start a new run",
    "n_step": "the transitions in its replay span this many steps; start a new run",
    "atoms": "its network has other outputs; start a new run",
    "value_min": "its network's outputs stand for other returns; start a new run",
    "value_max": "its network's outputs stand for other returns; start a new run",
    "quantiles": "its network has other outputs; start a new run",
    "hidden_sizes": "its weights are those of another network; start a new run",
    "impala_width": "its weights are those of another network; start a new run",
    "layer_norm": "its weights are those of another network; start a new run",
    "spectral_norm": "its weights mean something else without it; start a new run",
    "dueling": "its weights are those of another network; start a new run",
    "noisy": "its weights are those of another network; start a new run",
    "optimizer": "its state is that of another one; start a new run",
    "checkpoint_path": "to move a run, copy its files and give --resume the new place",
}
"""Fields that a resumed run keeps, each with the reason. All other fields may change."""
