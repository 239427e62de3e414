/* The load generator: one thread, epoll, so cheap that it measures the server and not itself.
 * Compiled with -D_GNU_SOURCE and -DDRAIN_S=SECONDS.
 *
 *   loadgen PROTOCOL OPERATION CONNECTIONS PIPELINE SECONDS KEYS VALUE_BYTES RATE PORT...
 *
 * PROTOCOL: resp, memcached, etcd (its JSON gateway), http (CacheFlow's REST API).  OPERATION: get, set, lget
 * (etcd: a linearizable range; resp: a get after READWRITE), or fill (a set of each key once, in order; SECONDS is how long it
 * may take).  Keys are key:000000000000 and so on, at random but for fill.
 * Connections are spread over the ports (127.0.0.1). RATE 0: each connection keeps PIPELINE requests under way. Another RATE:
 * that many requests a second, whatever the server does, in turn over the connections, each with at most PIPELINE under way;
 * a latency then counts from when the request was due.
 * SIGUSR1 forgets what was measured so far and begins the SECONDS anew, on the same connections.
 * After SECONDS nothing more is asked, and what was asked is waited for, DRAIN_S at most: its latencies count, too.
 * Prints one line of JSON: replies a second within SECONDS, all replies, errors, and latencies in microseconds: the longest
 * is exact, others are the middles of the buckets, which are printed as well. Exit code 1 when a connection fails and when
 * answers are missing.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { RESP, MEMCACHED, ETCD, HTTP };
enum { GET, SET, LGET, FILL };
/* Buckets for each power of two; the middle of one is within 0.8 % (below PARTS microseconds: half of one) of what is in it. */
#define PARTS 64
#define BUCKETS 4096
/* Enough of etcd's answer to a range to see whether there is something in it: behind a header of four numbers. */
#define RANGE_SEEN 256
#define PIPELINE_MAX 4096

struct connection {
    int fd, port;
    char *in;
    size_t have, room, skip; /* skip: bytes of a body that need not be looked at */
    char *out;
    size_t out_len, out_at;
    double sent_at[PIPELINE_MAX];
    unsigned first, pending;
    int greeting; /* replies that belong to the set-up */
};

static const double drain_s = DRAIN_S;
static int protocol, operation, pipeline, keys, value_bytes;
static char *value;
static double ends_at, rate, due_at, longest_us;
static uint64_t asked, replies, errors, misses, counted, histogram[BUCKETS];
static uint64_t state = 88172645463325252ULL;
static char last_error[200];
static volatile sig_atomic_t begins_anew;

static void begin_anew(int number) {
    (void)number;
    begins_anew = 1;
}

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static uint64_t draw(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, errno ? strerror(errno) : "");
    exit(1);
}

static int bucket(double us) {
    if (us < PARTS) return us < 0 ? 0 : (int)us;
    int power = 0;
    double scaled = us;
    while (scaled >= 2 * PARTS) {
        scaled /= 2;
        power++;
    }
    int at = PARTS * (power + 1) + (int)scaled - PARTS;
    return at < BUCKETS ? at : BUCKETS - 1;
}

/* Its middle. */
static double bucket_us(int at) {
    if (at < PARTS) return at + 0.5;
    double us = PARTS + at % PARTS + 0.5;
    for (int power = at / PARTS - 1; power > 0; power--) us *= 2;
    return us;
}

static double percentile(double share) {
    uint64_t seen = 0;
    for (int at = 0; at < BUCKETS; at++) {
        seen += histogram[at];
        if (seen >= share * counted) return bucket_us(at) < longest_us ? bucket_us(at) : longest_us;
    }
    return longest_us;
}

static size_t base64(char *to, const char *from, size_t len) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t at = 0;
    for (size_t i = 0; i < len; i += 3) {
        unsigned a = (unsigned char)from[i], b = i + 1 < len ? (unsigned char)from[i + 1] : 0,
                 c = i + 2 < len ? (unsigned char)from[i + 2] : 0, all = a << 16 | b << 8 | c;
        to[at++] = digits[all >> 18];
        to[at++] = digits[all >> 12 & 63];
        to[at++] = i + 1 < len ? digits[all >> 6 & 63] : '=';
        to[at++] = i + 2 < len ? digits[all & 63] : '=';
    }
    return at;
}

static size_t request(char *to) {
    char key[32];
    int key_len = sprintf(key, "key:%012d", (int)(operation == FILL ? asked : draw() % keys));
    int writes = operation == SET || operation == FILL;
    switch (protocol) {
    case RESP:
        if (!writes) return sprintf(to, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", key_len, key);
        return sprintf(to, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", key_len, key, value_bytes, value);
    case MEMCACHED:
        if (!writes) return sprintf(to, "get %s\r\n", key);
        return sprintf(to, "set %s 0 0 %d\r\n%s\r\n", key, value_bytes, value);
    case HTTP:
        if (operation == GET) return sprintf(to, "GET /cache/%s HTTP/1.1\r\nHost: x\r\n\r\n", key);
        if (operation == LGET)
            return sprintf(to, "GET /cache/%s?consistency=linearizable HTTP/1.1\r\nHost: x\r\n\r\n", key);
        return sprintf(to, "PUT /cache/%s HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s",
                       key, value_bytes, value);
    }
    char *body = malloc(256 + value_bytes * 2);
    size_t len = sprintf(body, "{\"key\":\"");
    len += base64(body + len, key, key_len);
    if (writes) {
        len += sprintf(body + len, "\",\"value\":\"");
        len += base64(body + len, value, value_bytes);
        len += sprintf(body + len, "\"}");
    } else {
        len += sprintf(body + len, operation == GET ? "\",\"serializable\":true}" : "\"}");
    }
    size_t head = sprintf(to, "POST /v3/kv/%s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n",
                          writes ? "put" : "range", len);
    memcpy(to + head, body, len);
    free(body);
    return head + len;
}

static void note_error(const char *from, size_t len) {
    errors++;
    if (len > sizeof last_error - 1) len = sizeof last_error - 1;
    memcpy(last_error, from, len);
    last_error[len] = 0;
}

/* Bytes of the complete chunked body at `from`, 0 when it is not complete. */
static size_t chunks_size(const char *from, size_t have) {
    for (size_t at = 0;;) {
        const char *end = memmem(from + at, have - at, "\r\n", 2);
        if (!end) return 0;
        size_t length = strtoul(from + at, NULL, 16);
        at = end + 4 - from + length;
        if (at > have) return 0;
        if (!length) return at;
    }
}

/* Bytes of the complete reply at `from`, 0 when it is not complete. *body: of these, how many need not be here. */
static size_t reply_size(const char *from, size_t have, size_t *body) {
    *body = 0;
    if (protocol == HTTP || protocol == ETCD) {
        const char *end = memmem(from, have, "\r\n\r\n", 4);
        if (!end) return 0;
        size_t head = end + 4 - from;
        const char *length = NULL;
        size_t chunks = 0;
        for (const char *at = from; at < end; at = (const char *)memchr(at, '\n', end + 4 - at) + 1) {
            if (!strncasecmp(at, "content-length:", 15)) length = at + 15;
            if (!strncasecmp(at, "transfer-encoding: chunked", 26) && !(chunks = chunks_size(from + head, have - head)))
                return 0;
        }
        size_t rest = chunks ? chunks : length ? strtoul(length, NULL, 10) : 0;
        int done = !memcmp(from + 9, "200", 3) || !memcmp(from + 9, "201", 3);
        if (done && protocol == ETCD && (operation == GET || operation == LGET)) {
            size_t seen = rest < RANGE_SEEN ? rest : RANGE_SEEN;
            if (have - head < seen) return 0;
            if (!memmem(from + head, seen, "\"kvs\"", 5)) misses++;
        }
        if (!done) note_error(from, have);
        if (!chunks) *body = rest;
        return head + rest;
    }
    const char *end = memmem(from, have, "\r\n", 2);
    if (!end) return 0;
    size_t line = end + 2 - from;
    if (protocol == RESP) {
        if (from[0] == '$' && from[1] != '-') {
            *body = strtoul(from + 1, NULL, 10) + 2;
            return line + *body;
        }
        if (from[0] == '-') note_error(from, line);
        if (from[0] == '$' || from[0] == '_') misses++;
        return line;
    }
    if (!memcmp(from, "VALUE ", 6)) {
        const char *at = memchr(from + 6, ' ', line);
        *body = strtoul(strchr(at + 1, ' ') + 1, NULL, 10) + 7; /* CRLF END CRLF */
        return line + *body;
    }
    if (memcmp(from, "END", 3) && memcmp(from, "STORED", 6)) note_error(from, line);
    if (!memcmp(from, "END", 3)) misses++;
    return line;
}

static void flush(struct connection *c, int poller) {
    while (c->out_at < c->out_len) {
        ssize_t sent = send(c->fd, c->out + c->out_at, c->out_len - c->out_at, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN) die("send");
            break;
        }
        c->out_at += sent;
    }
    if (c->out_at == c->out_len) c->out_at = c->out_len = 0;
    struct epoll_event event = {.events = EPOLLIN | (c->out_len ? EPOLLOUT : 0), .data.ptr = c};
    static unsigned char wants[65536];
    if (wants[c->fd] != (c->out_len != 0)) {
        wants[c->fd] = c->out_len != 0;
        epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
    }
}

static void ask(struct connection *c, double at) {
    if (c->out_at) { /* there is room for PIPELINE requests, but not behind what is already sent */
        memmove(c->out, c->out + c->out_at, c->out_len -= c->out_at);
        c->out_at = 0;
    }
    c->sent_at[(c->first + c->pending++) % PIPELINE_MAX] = at;
    c->out_len += request(c->out + c->out_len);
    asked++;
}

static int is_over(double now) {
    return now >= ends_at || (operation == FILL && asked == (uint64_t)keys);
}

static void refill(struct connection *c, double now) {
    while (c->pending < (unsigned)pipeline && !is_over(now)) ask(c, now);
}

/* Send what is due by now; where a connection has no room, the rest waits and grows old. */
static void ask_what_is_due(struct connection *all, int count, double now, int poller) {
    static int next;
    while (due_at <= now && due_at < ends_at && all[next].pending < (unsigned)pipeline && !all[next].out_len) {
        ask(all + next, due_at);
        flush(all + next, poller);
        next = (next + 1) % count;
        due_at += 1 / rate;
    }
}

static void receive(struct connection *c) {
    for (;;) {
        if (c->room - c->have < 65536) c->in = realloc(c->in, c->room = c->room * 2 + 65536);
        ssize_t got = recv(c->fd, c->in + c->have, c->room - c->have, 0);
        if (got < 0 && errno == EAGAIN) break;
        if (got <= 0) die(got ? "recv" : "the server closed a connection");
        c->have += got;
        if ((size_t)got < 65536) break;
    }
    double now = now_s();
    size_t at = 0;
    for (;;) {
        if (c->skip) {
            size_t skipped = c->skip < c->have - at ? c->skip : c->have - at;
            c->skip -= skipped;
            at += skipped;
            if (c->skip) break;
        } else {
            size_t body, size = at < c->have ? reply_size(c->in + at, c->have - at, &body) : 0;
            if (!size) break;
            at += size - body;
            c->skip = body;
            if (body) continue;
        }
        if (c->greeting) {
            c->greeting--;
            continue;
        }
        replies++;
        double us = (now - c->sent_at[c->first]) * 1e6;
        if (us > longest_us) longest_us = us;
        histogram[bucket(us)]++;
        counted++;
        c->first = (c->first + 1) % PIPELINE_MAX;
        c->pending--;
    }
    memmove(c->in, c->in + at, c->have -= at);
}

static int word(const char *given, const char *const *known, int count) {
    for (int i = 0; i < count; i++)
        if (!strcmp(given, known[i])) return i;
    fprintf(stderr, "unknown: %s\n", given);
    exit(2);
}

/* Wait until `until` for answers, take what came, and ask again where that is due; the time then. */
static double serve(double until, int poller) {
    struct epoll_event ready[256];
    double wait_s = until - now_s();
    if (wait_s < 0) wait_s = 0;
    struct timespec wait = {.tv_sec = (time_t)wait_s, .tv_nsec = (long)((wait_s - (time_t)wait_s) * 1e9)};
    int found = epoll_pwait2(poller, ready, 256, &wait, NULL);
    double now = now_s();
    for (int i = 0; i < found; i++) {
        struct connection *c = ready[i].data.ptr;
        if (ready[i].events & ~EPOLLOUT) receive(c);
        if (!rate) refill(c, now);
        flush(c, poller);
    }
    return now;
}

static void print(double per_s) {
    printf("{\"per_s\": %.1f, \"replies\": %llu, \"errors\": %llu, \"misses\": %llu, ", per_s, (unsigned long long)replies,
           (unsigned long long)errors, (unsigned long long)misses);
    printf("\"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, \"buckets\": [", percentile(0.5), percentile(0.99),
           longest_us);
    const char *between = "";
    for (int at = 0; at < BUCKETS; at++) {
        if (!histogram[at]) continue;
        printf("%s[%.1f, %llu]", between, bucket_us(at), (unsigned long long)histogram[at]);
        between = ", ";
    }
    printf("]}\n");
}

int main(int argc, char **argv) {
    static const char *const protocols[] = {"resp", "memcached", "etcd", "http"};
    static const char *const operations[] = {"get", "set", "lget", "fill"};
    if (argc < 10) {
        fprintf(stderr, "loadgen PROTOCOL OPERATION CONNECTIONS PIPELINE SECONDS KEYS VALUE_BYTES RATE PORT...\n");
        return 2;
    }
    protocol = word(argv[1], protocols, 4);
    operation = word(argv[2], operations, 4);
    int count = atoi(argv[3]);
    pipeline = atoi(argv[4]);
    double seconds = atof(argv[5]);
    keys = atoi(argv[6]);
    value_bytes = atoi(argv[7]);
    rate = atof(argv[8]);
    if (count < 1 || pipeline < 1 || pipeline > PIPELINE_MAX || seconds <= 0 || keys < 1 || value_bytes < 1 || rate < 0 ||
        (rate && operation == FILL))
        return 2;
    value = malloc(value_bytes + 1);
    memset(value, 'x', value_bytes);
    value[value_bytes] = 0;
    state ^= getpid();
    int poller = epoll_create1(0);
    struct connection *all = calloc(count, sizeof *all);
    for (int i = 0; i < count; i++) {
        struct connection *c = all + i;
        c->port = atoi(argv[9 + i % (argc - 9)]);
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(c->port)};
        inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address)) die("connect");
        int one = 1;
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        c->out = malloc((size_t)pipeline * (512 + 2 * (size_t)value_bytes) + 64);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event);
        if (protocol == RESP && operation == LGET) {
            c->out_len = sprintf(c->out, "READWRITE\r\n");
            c->greeting = 1;
        }
    }
    struct sigaction anew = {.sa_handler = begin_anew};
    sigaction(SIGUSR1, &anew, NULL);
    double began = now_s();
    uint64_t before = 0;
    ends_at = began + seconds;
    due_at = began;
    for (int i = 0; i < count; i++) {
        if (!rate) refill(all + i, began);
        flush(all + i, poller);
    }
    double now = began;
    while (!is_over(now)) {
        if (begins_anew) {
            begins_anew = 0;
            memset(histogram, 0, sizeof histogram);
            longest_us = counted = 0;
            before = replies;
            began = now;
            ends_at = began + seconds;
        }
        if (rate) ask_what_is_due(all, count, now, poller);
        now = serve(rate && due_at > now && due_at < ends_at ? due_at : ends_at, poller);
    }
    /* Replies a second: those within the window, by the time that really passed. A fill ends with its last one. */
    uint64_t within = replies - before;
    double took_s = now - began;
    if (rate) ask_what_is_due(all, count, now, poller); /* what fell due since it was looked at last */
    for (double until = now + drain_s; replies < asked && now < until;) now = serve(until, poller);
    if (operation == FILL) {
        within = replies;
        took_s = now - began;
    }
    if (errors) fprintf(stderr, "an error: %s\n", last_error);
    if (replies < asked) {
        fprintf(stderr, "%llu of %llu answers are missing %g s after the end\n", (unsigned long long)(asked - replies),
                (unsigned long long)asked, drain_s);
        return 1;
    }
    if (operation == FILL && asked < (uint64_t)keys) {
        fprintf(stderr, "%llu of %d keys were written in %g s\n", (unsigned long long)asked, keys, seconds);
        return 1;
    }
    print(within / took_s);
    return 0;
}
