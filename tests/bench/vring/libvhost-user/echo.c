/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An echo device on libvhost-user, to compare the round trips of its queues
 * with those of the Go library: it copies the readable part of each request to
 * the writable part. One thread polls the socket and the kicks, as QEMU's own
 * small daemons do.
 *
 * usage: echo SOCKET
 */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "libvhost-user.h"

#define QUEUES 1
#define WATCHES 16

struct watch {
    int fd;
    vu_watch_cb cb;
    void *data;
};

static struct watch watches[WATCHES];
static bool failed;

static void on_panic(VuDev *dev, const char *err)
{
    fprintf(stderr, "libvhost-user: %s\n", err);
    failed = true;
}

static void set_watch(VuDev *dev, int fd, int condition, vu_watch_cb cb,
                      void *data)
{
    struct watch *unused = NULL;

    for (int i = 0; i < WATCHES; i++) {
        if (watches[i].cb && watches[i].fd == fd) {
            unused = &watches[i];
            break;
        }
        if (!watches[i].cb && !unused) {
            unused = &watches[i];
        }
    }
    *unused = (struct watch){ .fd = fd, .cb = cb, .data = data };
}

static void remove_watch(VuDev *dev, int fd)
{
    for (int i = 0; i < WATCHES; i++) {
        if (watches[i].cb && watches[i].fd == fd) {
            watches[i].cb = NULL;
        }
    }
}

static uint64_t get_features(VuDev *dev)
{
    return 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC |
           1ull << VIRTIO_RING_F_EVENT_IDX;
}

static void set_features(VuDev *dev, uint64_t features)
{
}

static void handle(VuDev *dev, int index)
{
    VuVirtq *vq = vu_get_queue(dev, index);
    VuVirtqElement *elem;

    while ((elem = vu_queue_pop(dev, vq, sizeof(*elem)))) {
        size_t n = 0;

        if (elem->out_num && elem->in_num) {
            n = elem->out_sg[0].iov_len;
            if (n > elem->in_sg[0].iov_len) {
                n = elem->in_sg[0].iov_len;
            }
            memcpy(elem->in_sg[0].iov_base, elem->out_sg[0].iov_base, n);
        }
        vu_queue_push(dev, vq, elem, n);
        free(elem);
    }
    vu_queue_notify(dev, vq);
}

static void queue_set_started(VuDev *dev, int index, bool started)
{
    vu_set_queue_handler(dev, vu_get_queue(dev, index),
                         started ? handle : NULL);
}

static const VuDevIface iface = {
    .get_features = get_features,
    .set_features = set_features,
    .queue_set_started = queue_set_started,
};

static int accept_one(const char *path)
{
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (sock < 0 || strlen(path) >= sizeof(addr.sun_path)) {
        return -1;
    }
    strcpy(addr.sun_path, path);
    if (bind(sock, (struct sockaddr *)&addr, sizeof(addr)) || listen(sock, 1)) {
        return -1;
    }
    return accept4(sock, NULL, NULL, SOCK_CLOEXEC);
}

int main(int argc, char **argv)
{
    VuDev dev;
    int sock;

    if (argc != 2) {
        fprintf(stderr, "usage: echo SOCKET\n");
        return 2;
    }
    sock = accept_one(argv[1]);
    if (sock < 0) {
        perror(argv[1]);
        return 1;
    }
    if (!vu_init(&dev, QUEUES, sock, on_panic, NULL, set_watch, remove_watch,
                 &iface)) {
        return 1;
    }
    while (!failed) {
        struct pollfd fds[WATCHES + 1] = { { .fd = sock, .events = POLLIN } };
        struct watch *of[WATCHES + 1];
        int n = 1;

        for (int i = 0; i < WATCHES; i++) {
            if (watches[i].cb) {
                of[n] = &watches[i];
                fds[n++] = (struct pollfd){ .fd = watches[i].fd,
                                            .events = POLLIN };
            }
        }
        if (poll(fds, n, -1) < 0 && errno != EINTR) {
            perror("poll");
            return 1;
        }
        for (int i = 1; i < n; i++) {
            if (fds[i].revents && of[i]->cb) {
                of[i]->cb(&dev, VU_WATCH_IN, of[i]->data);
            }
        }
        if (fds[0].revents && !vu_dispatch(&dev)) {
            break; /* the frontend hung up */
        }
    }
    vu_deinit(&dev);
    return failed;
}
