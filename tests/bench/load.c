/* A load generator for Socket.IO over WebSocket: many clients in one thread, so that it is seldom the limit.
 *
 * It shares no code with any server. Every client opens a WebSocket, joins the main namespace with the packet it
 * was given, asks for its partner, and then says small chat messages, each with an acknowledgement. Latency counts
 * from when a message was meant to be sent (its id carries that time) until its partner's socket has it.
 *
 *   load AT_ONCE [later]
 *
 * AT_ONCE: so many clients are on their way in at a time; later: they do not ask for their partners by themselves.
 * Its input is a line for each client, two following each other being partners: port TAB connect packet TAB request
 * for a partner (empty: only connects); then an empty line. It prints a line of JSON when everybody is there, and
 * holds the connections. Each further line is work to do:
 *
 *   meet                all ask for their partners at once
 *   closed SECONDS      one message under way for each client: the next once it is acknowledged and delivered
 *   rate SECONDS RATE   RATE messages a second in all, whatever comes back, each client in turn
 *
 * It prints a line when all have met; or when the time is up, and after that, having waited up to two seconds for what
 * is under way, the outcome as a line of JSON, in which "busy" is the share of the time that it had a processor: near 1
 * it may have been the limit.
 * It ends with its input.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { DOWN, CONNECTING, UPGRADING, OPENING, JOINING, LOOKING, READY };
enum { ROOM = 4096 };
#define TEXT "Met anyone who climbs, and likes jazz as well?"

struct client {
  int fd, state, port;
  char *join, *look;
  char *in;
  size_t held, room;
  char conversation[32];
  uint64_t seq;
  int under_way; /* what is still to come for its message: the acknowledgement, the delivery */
};

static struct client *clients;
static size_t count, coming, there;
static int later;
static int poller;
static enum { NOT, SAYING, WAITING } work;
static int again; /* whose message is done says the next one */
static uint64_t sent, acked, delivered, refused;
static uint32_t *latencies;
static size_t latency_count, latency_room;

static void fail(const char *format, ...) {
  va_list args;
  va_start(args, format);
  fputs("load: ", stderr);
  vfprintf(stderr, format, args);
  fputc('\n', stderr);
  va_end(args);
  exit(1);
}

static uint64_t clock_ns(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

static void keep(uint64_t ns) {
  if (latency_count == latency_room) {
    latency_room = latency_room ? latency_room * 2 : 65536;
    latencies = realloc(latencies, latency_room * sizeof *latencies);
    if (!latencies) fail("out of memory");
  }
  uint64_t us = ns / 1000;
  latencies[latency_count++] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

/* ------------------------------------------------------------------ frames */

static void put(struct client *c, const char *bytes, size_t size) {
  while (size) {
    ssize_t n = send(c->fd, bytes, size, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EINTR) continue;
      /* Requests are small and few are under way: a full socket means that the server stands still. */
      fail("client %zu cannot send: %s", (size_t)(c - clients), strerror(errno));
    }
    bytes += n;
    size -= (size_t)n;
  }
}

static void send_text(struct client *c, const char *text, size_t size) {
  static const unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d};
  unsigned char frame[ROOM];
  size_t head = 2;
  if (size + 8 > sizeof frame) fail("a text of %zu bytes", size);
  frame[0] = 0x81;
  if (size < 126) {
    frame[1] = 0x80 | (unsigned char)size;
  } else {
    frame[1] = 0x80 | 126;
    frame[2] = (unsigned char)(size >> 8);
    frame[3] = (unsigned char)size;
    head = 4;
  }
  memcpy(frame + head, mask, 4);
  head += 4;
  for (size_t i = 0; i < size; i++) frame[head + i] = (unsigned char)text[i] ^ mask[i & 3];
  put(c, (char *)frame, head + size);
}

static void say(struct client *c, uint64_t meant) {
  char text[640];
  c->seq++;
  /* An id of 22 characters: when it was meant to be sent, and which client's it is. */
  int size = snprintf(text, sizeof text,
                      "42%llu[\"chat:message\",{\"conversationId\":\"%s\",\"id\":\"%018llu%04x\",\"seq\":%llu,"
                      "\"body\":{\"kind\":\"text\",\"text\":\"" TEXT "\"}}]",
                      (unsigned long long)c->seq, c->conversation, (unsigned long long)meant,
                      (unsigned)((c - clients) & 0xffff), (unsigned long long)c->seq);
  send_text(c, text, (size_t)size);
  c->under_way = 2;
  sent++;
}

static void came(struct client *c) {
  if (--c->under_way == 0 && again && work == SAYING) say(c, now_ns());
}

/* ------------------------------------------------------------------ what comes */

static int begins(const char *text, size_t size, const char *with) {
  size_t length = strlen(with);
  return size >= length && memcmp(text, with, length) == 0;
}

static void found(struct client *c, const char *text, size_t size) {
  static const char mark[] = "\"conversation\":{\"id\":\"";
  const char *at = memmem(text, size, mark, sizeof mark - 1);
  if (!at) fail("no conversation in: %.*s", (int)size, text);
  at += sizeof mark - 1;
  const char *end = memchr(at, '"', size - (size_t)(at - text));
  if (!end || (size_t)(end - at) >= sizeof c->conversation) fail("a strange conversation: %.*s", (int)size, text);
  memcpy(c->conversation, at, (size_t)(end - at));
  c->conversation[end - at] = 0;
  c->state = READY;
  there++;
}

static void heard(struct client *c, const char *text, size_t size) {
  if (begins(text, size, "43")) {
    if (c->state != READY || work == NOT) {
      if (memmem(text, size, "\"error\"", 7)) fail("refused: %.*s", (int)size, text);
      return;
    }
    acked++;
    if (!memmem(text, size, "\"ok\"", 4) && refused++ < 3)
      fprintf(stderr, "load: refused: %.*s\n", (int)size, text);
    came(c);
  } else if (begins(text, size, "42[\"chat:message\"")) {
    static const char mark[] = "\"id\":\"";
    const char *at = text, *end = text + size;
    uint64_t meant = 0, from = 0;
    /* The conversation has an id of its own, under another name. */
    while ((at = memmem(at, (size_t)(end - at), mark, sizeof mark - 1))) {
      at += sizeof mark - 1;
      if (end - at < 22) break;
      for (int i = 0; i < 18; i++) meant = meant * 10 + (uint64_t)(at[i] - '0');
      from = strtoull((char[]){at[18], at[19], at[20], at[21], 0}, NULL, 16);
      break;
    }
    if (!meant) fail("a message without an id: %.*s", (int)size, text);
    if ((from ^ 1) != (size_t)(c - clients)) fail("client %zu heard: %.*s", (size_t)(c - clients), (int)size, text);
    if (!memmem(text, size, "\"" TEXT "\"", sizeof TEXT + 1)) fail("another text: %.*s", (int)size, text);
    delivered++;
    keep(now_ns() - meant);
    came(clients + from);
  } else if (begins(text, size, "42[\"match:found\"")) {
    if (c->state != READY) found(c, text, size);
  } else if (size == 1 && text[0] == '2') {
    send_text(c, "3", 1);
  } else if (c->state == OPENING && begins(text, size, "0")) {
    c->state = JOINING;
    send_text(c, c->join, strlen(c->join));
  } else if (c->state == JOINING && begins(text, size, "40")) {
    coming--;
    if (*c->look && !later) {
      c->state = LOOKING;
      send_text(c, c->look, strlen(c->look));
    } else {
      c->state = READY;
      there++;
    }
  } else if (begins(text, size, "44") || begins(text, size, "41")) {
    fail("client %zu was turned away: %.*s", (size_t)(c - clients), (int)size, text);
  }
}

static void read_frames(struct client *c) {
  size_t at = 0;
  for (;;) {
    unsigned char *frame = (unsigned char *)c->in + at;
    size_t left = c->held - at, head = 2, size;
    if (left < 2) break;
    size = frame[1] & 0x7f;
    if (size == 126) {
      if (left < 4) break;
      size = (size_t)frame[2] << 8 | frame[3];
      head = 4;
    } else if (size == 127) {
      fail("a frame of more than 64 KiB");
    }
    if (left < head + size) break;
    if ((frame[0] & 0x0f) == 8) fail("client %zu was closed by the server", (size_t)(c - clients));
    if (frame[0] == 0x81) heard(c, (char *)frame + head, size);
    at += head + size;
  }
  memmove(c->in, c->in + at, c->held - at);
  c->held -= at;
}

static void receive(struct client *c) {
  for (;;) {
    if (c->room - c->held < ROOM / 2) {
      c->room = c->room ? c->room * 2 : ROOM;
      c->in = realloc(c->in, c->room);
      if (!c->in) fail("out of memory");
    }
    size_t asked = c->room - c->held;
    ssize_t n = recv(c->fd, c->in + c->held, asked, 0);
    if (n == 0) fail("client %zu was hung up on", (size_t)(c - clients));
    if (n < 0) {
      if (errno == EAGAIN) return;
      if (errno == EINTR) continue;
      fail("client %zu: %s", (size_t)(c - clients), strerror(errno));
    }
    c->held += (size_t)n;
    if (c->state == UPGRADING) {
      char *end = memmem(c->in, c->held, "\r\n\r\n", 4);
      if (!end) continue;
      if (!begins(c->in, c->held, "HTTP/1.1 101")) fail("no WebSocket: %.*s", (int)(end - c->in), c->in);
      size_t used = (size_t)(end + 4 - c->in);
      memmove(c->in, c->in + used, c->held - used);
      c->held -= used;
      c->state = OPENING;
    }
    read_frames(c);
    if ((size_t)n < asked) return;
  }
}

/* ------------------------------------------------------------------ connecting */

static void start(struct client *c) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)c->port)};
  struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
  int one = 1;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (c->fd < 0) fail("no socket: %s", strerror(errno));
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS)
    fail("cannot connect to port %d: %s", c->port, strerror(errno));
  c->state = CONNECTING;
  coming++;
  epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event);
}

static void upgrade(struct client *c) {
  char request[512];
  int error = 0;
  socklen_t length = sizeof error;
  getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
  if (error) fail("cannot connect to port %d: %s", c->port, strerror(error));
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
  epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
  c->state = UPGRADING;
  int size = snprintf(request, sizeof request,
                      "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
                      "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                      c->port);
  put(c, request, (size_t)size);
}

static void turn(uint64_t until) {
  struct epoll_event events[256];
  uint64_t now = now_ns(), ns = until > now ? until - now : 0;
  struct timespec wait = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
  int n = epoll_pwait2(poller, events, 256, &wait, NULL);
  for (int i = 0; i < n; i++) {
    struct client *c = events[i].data.ptr;
    if (c->state == CONNECTING)
      upgrade(c);
    else
      receive(c);
  }
}

/* ------------------------------------------------------------------ the whole */

static int by_size(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static double latency_ms(double share) {
  if (!latency_count) return 0;
  size_t at = (size_t)(share * (double)latency_count);
  return (double)latencies[at < latency_count ? at : latency_count - 1] / 1000.0;
}

static void read_clients(void) {
  char *line = NULL;
  size_t room = 0, have = 0;
  ssize_t size;
  while ((size = getline(&line, &room, stdin)) > 0 && line[0] != '\n') {
    if (count == have) {
      have = have ? have * 2 : 1024;
      clients = realloc(clients, have * sizeof *clients);
      if (!clients) fail("out of memory");
    }
    struct client *c = clients + count++;
    memset(c, 0, sizeof *c);
    line[size - 1] = 0;
    char *join = strchr(line, '\t');
    char *look = join ? strchr(join + 1, '\t') : NULL;
    if (!look) fail("not a client: %s", line);
    *join = *look = 0;
    c->port = atoi(line);
    c->join = strdup(join + 1);
    c->look = strdup(look + 1);
  }
  free(line);
  /* Their numbers have four digits of an id, and everybody has a partner. */
  if (!count || count > 0x10000) fail("%zu clients", count);
}

/* Everybody there; prints how long it took. */
static void bring(size_t at_once) {
  uint64_t begun = now_ns(), used = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
  size_t started = 0;
  while (there < count) {
    while (started < count && coming < at_once) start(clients + started++);
    turn(now_ns() + 50000000u);
    if (now_ns() - begun > 300000000000u) fail("only %zu of %zu came together", there, count);
  }
  double took = (double)(now_ns() - begun) / 1e9;
  used = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - used;
  printf("{\"there\": %zu, \"seconds\": %.6f, \"busy\": %.3f}\n", count, took, (double)used / 1e9 / took);
  fflush(stdout);
}

/* Pings are answered until there is something to do. */
static void hold(void) {
  struct epoll_event word = {.events = EPOLLIN, .data.ptr = NULL};
  int told = 0;
  epoll_ctl(poller, EPOLL_CTL_ADD, 0, &word);
  while (!told) {
    struct epoll_event events[256];
    int n = epoll_wait(poller, events, 256, -1);
    for (int i = 0; i < n; i++) {
      if (events[i].data.ptr)
        receive(events[i].data.ptr);
      else
        told = 1;
    }
  }
  epoll_ctl(poller, EPOLL_CTL_DEL, 0, NULL);
}

static void meet(void) {
  uint64_t begun = now_ns();
  there = 0;
  for (size_t i = 0; i < count; i++) {
    clients[i].state = LOOKING;
    send_text(clients + i, clients[i].look, strlen(clients[i].look));
  }
  while (there < count) {
    turn(now_ns() + 50000000u);
    if (now_ns() - begun > 300000000000u) fail("only %zu of %zu met", there, count);
  }
  printf("{\"seconds\": %.6f}\n", (double)(now_ns() - begun) / 1e9);
  fflush(stdout);
}

static void do_work(double seconds, double rate) {
  uint64_t from = now_ns(), until = from + (uint64_t)(seconds * 1e9), next = from, said = 0;
  uint64_t used = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
  sent = acked = delivered = refused = 0;
  latency_count = 0;
  work = SAYING;
  again = !rate;
  if (again) {
    for (size_t i = 0; i < count; i++) say(clients + i, now_ns());
    while (now_ns() < until) turn(until);
  } else {
    while (next < until) {
      turn(next);
      while (next < until && next <= now_ns()) {
        say(clients + said % count, next);
        next = from + (uint64_t)((double)++said * 1e9 / rate);
      }
    }
  }
  uint64_t within = acked, within_delivered = delivered;
  double worked = (double)(now_ns() - from) / 1e9;
  used = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - used;
  printf("{\"done\": true}\n");
  fflush(stdout);
  work = WAITING;
  uint64_t patience = now_ns() + 2000000000u;
  while ((acked < sent || delivered < sent) && now_ns() < patience) turn(now_ns() + 20000000u);
  work = NOT;
  qsort(latencies, latency_count, sizeof *latencies, by_size);
  printf("{\"sent\": %llu, \"acked\": %llu, \"delivered\": %llu, \"refused\": %llu, \"seconds\": %.4f, "
         "\"acked_within\": %llu, \"delivered_within\": %llu, \"busy\": %.3f, "
         "\"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f}\n",
         (unsigned long long)sent, (unsigned long long)acked, (unsigned long long)delivered,
         (unsigned long long)refused, worked, (unsigned long long)within, (unsigned long long)within_delivered,
         (double)used / 1e9 / worked, latency_ms(0.5), latency_ms(0.99), latency_ms(1));
  fflush(stdout);
}

int main(int argc, char **argv) {
  size_t at_once = argc > 1 ? (size_t)atol(argv[1]) : 0;
  char line[64];
  if (!at_once) fail("load AT_ONCE [later]");
  later = argc > 2;
  setvbuf(stdin, NULL, _IONBF, 0);
  /* Else a sleep may last 50 microseconds longer than asked, which would be counted as the server's. */
  prctl(PR_SET_TIMERSLACK, 1);
  read_clients();
  poller = epoll_create1(0);
  bring(at_once);
  for (hold(); fgets(line, sizeof line, stdin); hold()) {
    double seconds, rate = 0;
    if (!strcmp(line, "meet\n")) {
      meet();
      continue;
    }
    if (sscanf(line, "closed %lf", &seconds) != 1 && sscanf(line, "rate %lf %lf", &seconds, &rate) != 2)
      fail("no such work: %s", line);
    do_work(seconds, rate);
  }
  return 0;
}
