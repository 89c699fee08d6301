/* Sums that other sums are made of; see shared_sum.c and tcp_sum.c. */
#ifndef EXCHANGES_H
#define EXCHANGES_H

#include <stddef.h>

struct shared_exchange;
struct tcp_exchange;

const float *shared_exchange(struct shared_exchange *exchange, const float *own);
void shared_meeting(struct shared_exchange *exchange);
const float *tcp_exchange(struct tcp_exchange *exchange, const float *own);

#endif
