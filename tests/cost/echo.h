/* A broker at the end of a loopback connection, on threads of this process: it takes every push and does nothing. What it
 * costs is the same for each message, so that the rest is the client's. */
#ifndef ECHO_H
#define ECHO_H
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ECHO_RESULT \
  ",\"message_id\":\"01a218cd-feac-7000-9ca5-0f1e5333468e\",\"transaction_id\":\"01a218cd-feac-7000-9ca5-0f1e5333468e\",\"queueName\":\"cost\",\"status\":\"queued\"}"

static useconds_t echo_pause_us = 0;

static void echo_stop(const char *what) {
  perror(what);
  _exit(2);
}

/* One answer for each item of the body; items are counted by their ids, which no payload here has. */
static size_t echo_answer(const char *body, size_t length, char *out) {
  static const char id[] = "\"transactionId\":";
  const char *end = body + length, *at = body;
  char *to = out;
  unsigned long n = 0;
  *to++ = '[';
  while ((at = (const char *)memmem(at, (size_t)(end - at), id, sizeof id - 1)) != NULL) {
    at += sizeof id;
    if (n > 0) *to++ = ',';
    to += sprintf(to, "{\"index\":%lu", n++);
    memcpy(to, ECHO_RESULT, sizeof ECHO_RESULT - 1);
    to += sizeof ECHO_RESULT - 1;
  }
  *to++ = ']';
  return (size_t)(to - out);
}

static void *echo_connection(void *socket_number) {
  int socket_fd = (int)(intptr_t)socket_number;
  size_t room = 1 << 20, filled = 0, out_room = 0;
  char *in = (char *)malloc(room + 1), *out = NULL;
  for (;;) {
    ssize_t more = read(socket_fd, in + filled, room - filled);
    if (more <= 0) break;
    filled += (size_t)more;
    in[filled] = '\0';
    char *head_end = strstr(in, "\r\n\r\n");
    if (head_end == NULL) continue;
    *head_end = '\0'; /* so that nothing is found in the body */
    char *length_at = strcasestr(in, "content-length:");
    *head_end = '\r';
    size_t head = (size_t)(head_end - in) + 4, length = length_at == NULL ? 0 : strtoul(length_at + 15, NULL, 10);
    if (head + length > room) {
      room = head + length;
      in = (char *)realloc(in, room + 1);
    }
    if (filled < head + length) continue;
    /* A result is longer than the shortest item by so much at most. */
    if (out_room < 256 + length * 4) {
      out_room = 256 + length * 4;
      out = (char *)realloc(out, out_room);
    }
    size_t body = echo_answer(in + head, length, out + 128);
    char start[128];
    int start_length = snprintf(start, sizeof start, "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n", body);
    char *from = out + 128 - start_length;
    memcpy(from, start, (size_t)start_length);
    /* Everybody has gone to sleep before the answer comes: so each run takes the same ways. */
    if (echo_pause_us > 0) usleep(echo_pause_us);
    for (size_t left = body + (size_t)start_length; left > 0;) {
      ssize_t sent = write(socket_fd, from, left);
      if (sent <= 0) echo_stop("echo: write");
      from += sent;
      left -= (size_t)sent;
    }
    filled = 0; /* one request at a time */
  }
  close(socket_fd);
  free(in);
  free(out);
  return NULL;
}

static void *echo_listener(void *listening) {
  int one = 1;
  for (;;) {
    int socket_fd = accept((int)(intptr_t)listening, NULL, NULL);
    pthread_t thread;
    if (socket_fd < 0) echo_stop("echo: accept");
    setsockopt(socket_fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (pthread_create(&thread, NULL, echo_connection, (void *)(intptr_t)socket_fd) != 0) echo_stop("echo: thread");
    pthread_detach(thread);
  }
  return NULL;
}

/* Starts it and writes its URL. */
static void echo_start(char *url, size_t room) {
  struct sockaddr_in address;
  socklen_t length = sizeof address;
  pthread_t thread;
  int listening = socket(AF_INET, SOCK_STREAM, 0);
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (listening < 0 || bind(listening, (struct sockaddr *)&address, sizeof address) != 0 || listen(listening, 64) != 0 ||
      getsockname(listening, (struct sockaddr *)&address, &length) != 0)
    echo_stop("echo: listen");
  if (pthread_create(&thread, NULL, echo_listener, (void *)(intptr_t)listening) != 0) echo_stop("echo: thread");
  pthread_detach(thread);
  snprintf(url, room, "http://127.0.0.1:%d", ntohs(address.sin_port));
}

#endif
