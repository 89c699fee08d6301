/* Ranks on several hosts, of which some have several: sum within each host in shared memory, then one rank of each over TCP.
 *
 * That rank takes the sum over the hosts where the others of its host see it; all meet, and read it there.
 */
#include "exchanges.h"

/* hosts_vectors.py has the struct's twin. */
struct hosts_exchange {
    struct shared_exchange *within;
    struct shared_exchange *total; /* of `length` + 1 numbers: the sum, then whether a connection broke */
    struct tcp_exchange *between;  /* none but on one rank of each host; its result is `sum` */
    float *sum;
    size_t length;
};

/* Sums a vector over the ranks. The result stays until the next call; NULL if a connection broke. */
const float *hosts_exchange(struct hosts_exchange *exchange, const float *own) {
    const float *within = shared_exchange(exchange->within, own);
    if (exchange->between) exchange->sum[exchange->length] = tcp_exchange(exchange->between, within) ? 0.0f : 1.0f;
    shared_meeting(exchange->total); /* COLLECTIVE */
    return exchange->sum[exchange->length] == 0.0f ? exchange->sum : NULL;
}
