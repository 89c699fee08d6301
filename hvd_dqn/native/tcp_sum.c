/* Ranks on several hosts sum vectors over TCP connections, one between any two of them.
 *
 * Of a short vector, or between two ranks, everyone sends all to all, and adds up all for itself: one way across the network. Of a
 * long one everyone first sends each other rank its part, adds up its own, and sends that to all: two ways, and no more
 * bytes than a ring. Numbers are added up in the order of ranks, as in shared memory: the same bits.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "exchanges.h"
#include "vector_sums.h"

/* Floats of the other ranks up to which a vector is short: their way across a network takes about as long as its latency. */
#define SHORT 32768
/* Bytes of one call, which are added up while they are in the core's own cache. */
#define MOST_AT_ONCE (1 << 18)

/* tcp_vectors.py has the struct's twin. */
struct tcp_exchange {
    const int *sockets; /* to each other rank; nothing at this rank's own place */
    size_t rank, ranks, length;
    float *result;   /* [length] */
    float *received; /* of the other ranks' vectors, see tcp_received_floats */
    int64_t lost;    /* the rank whose connection broke */
    int64_t error;   /* errno, or 0 where that rank has hung up */
};

/* What a rank is sent, and what it sends. */
struct letter {
    const char *out;
    char *in;
    size_t out_left, in_left;
};

static int in_one_way(size_t ranks, size_t length) { return ranks == 2 || (ranks - 1) * length <= SHORT; }

static size_t received_stride(size_t ranks, size_t length) {
    return vector_stride(in_one_way(ranks, length) ? length : shared_part(1, ranks, length));
}

/* Returns the floats of memory for what the others send; of two ranks it comes where the result will be. */
size_t tcp_received_floats(size_t ranks, size_t length) {
    return ranks == 2 ? 0 : ranks * received_stride(ranks, length);
}

/* Takes note of what a call has moved; returns whether it moved anything, -1 if the connection is broken. */
static int moved(struct tcp_exchange *exchange, size_t other, ssize_t bytes, size_t *left) {
    if (bytes > 0) {
        *left -= bytes;
        return 1;
    }
    if (bytes < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return 0;
    exchange->lost = (int64_t)other;
    exchange->error = bytes < 0 ? errno : 0;
    return -1;
}

/* Sends and takes what goes now. Returns whether that was anything, -1 if a connection is broken. */
static int move_some(struct tcp_exchange *exchange, struct letter *letters) {
    int any = 0;
    for (size_t i = 1; i < exchange->ranks; i++) {
        /* Beginning behind itself: not all send to the same rank at once. */
        const size_t other = (exchange->rank + i) % exchange->ranks;
        struct letter *letter = letters + other;
        const int socket = exchange->sockets[other];
        if (letter->out_left) {
            const size_t most = letter->out_left < MOST_AT_ONCE ? letter->out_left : MOST_AT_ONCE;
            const ssize_t bytes = send(socket, letter->out, most, MSG_DONTWAIT | MSG_NOSIGNAL);
            const int some = moved(exchange, other, bytes, &letter->out_left);
            if (some < 0) return -1;
            if (some) letter->out += bytes;
            any |= some;
        }
        if (letter->in_left) {
            const size_t most = letter->in_left < MOST_AT_ONCE ? letter->in_left : MOST_AT_ONCE;
            const ssize_t bytes = recv(socket, letter->in, most, MSG_DONTWAIT);
            const int some = moved(exchange, other, bytes, &letter->in_left);
            if (some < 0) return -1;
            if (some) letter->in += bytes;
            any |= some;
        }
    }
    return any;
}

/* Sleeps until a connection has something to take or room for something to send. */
static void wait_for_any(const struct tcp_exchange *exchange, const struct letter *letters) {
    struct pollfd waiting[exchange->ranks];
    for (size_t i = 0; i < exchange->ranks; i++) {
        const short events = (letters[i].out_left ? POLLOUT : 0) | (letters[i].in_left ? POLLIN : 0);
        waiting[i] = (struct pollfd){events ? exchange->sockets[i] : -1, events, 0};
    }
    poll(waiting, exchange->ranks, -1);
}

/* Exchanges letters with all other ranks. Meanwhile adds up what has come of the `ranks` vectors, each of the size of a
 * letter, if there are any. Returns whether all connections held. */
static int exchange_letters(struct tcp_exchange *exchange, struct letter *letters, const float *const *vectors,
                            float *sum, size_t size) {
    size_t added = 0;
    for (unsigned looks = 0;; looks++) {
        size_t left = 0, latest = 0;
        const int some = move_some(exchange, letters);
        if (some < 0) return 0;
        for (size_t other = 0; other < exchange->ranks; other++) {
            left += letters[other].out_left + letters[other].in_left;
            if (letters[other].in_left > latest) latest = letters[other].in_left;
        }
        const size_t come = size - (latest + sizeof(float) - 1) / sizeof(float);
        if (vectors && come > added && (come == size || come - added >= SUM_BLOCK)) {
            add_up(sum, vectors, exchange->ranks, added, come);
            added = come;
        }
        if (!left) return 1;
        if (some)
            looks = 0;
        else if (looks >= LOOKS + YIELDS)
            wait_for_any(exchange, letters);
        else if (looks >= LOOKS)
            sched_yield();
    }
}

static struct letter letter_of(const float *out, size_t out_floats, float *in, size_t in_floats) {
    return (struct letter){(const char *)out, (char *)in, out_floats * sizeof(float), in_floats * sizeof(float)};
}

/* Sums a vector over two ranks or more. The result stays until the next call; NULL if a connection broke. */
const float *tcp_exchange(struct tcp_exchange *exchange, const float *own) {
    const size_t rank = exchange->rank, ranks = exchange->ranks, length = exchange->length;
    const int one_way = in_one_way(ranks, length);
    const size_t stride = received_stride(ranks, length);
    size_t starts[ranks + 1]; /* of the parts that the ranks add up, each its own; or all of them everything */
    for (size_t i = 0; i <= ranks; i++) starts[i] = one_way ? 0 : shared_part(i, ranks, length);
    const size_t size = one_way ? length : starts[rank + 1] - starts[rank];
    float *const sum = exchange->result + starts[rank];
    struct letter letters[ranks];
    const float *vectors[ranks];
    for (size_t other = 0; other < ranks; other++) {
        float *in = ranks == 2 ? sum : exchange->received + other * stride;
        vectors[other] = other == rank ? own + starts[rank] : in;
        letters[other] = letter_of(own + starts[other], one_way ? length : starts[other + 1] - starts[other], in, size);
    }
    letters[rank] = (struct letter){0};
    if (!exchange_letters(exchange, letters, vectors, sum, size)) return NULL;
    if (one_way) return exchange->result;
    for (size_t other = 0; other < ranks; other++)
        letters[other] = letter_of(sum, size, exchange->result + starts[other], starts[other + 1] - starts[other]);
    letters[rank] = (struct letter){0};
    return exchange_letters(exchange, letters, NULL, NULL, 0) ? exchange->result : NULL;
}
