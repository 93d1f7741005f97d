/* Lets Debian's user-mode-linux (Linux 6.1) run on processors with AMX.
 *
 * It saves and restores the extended registers of what runs in it in a buffer of 2696 bytes: up to AVX-512. The kernel
 * below takes all of a process's registers or none (`xstateregs_set`: EFAULT, "ptrace set fp regs failed"). So what it
 * sets is laid over what the process has: components that end within its buffer are the guest's, those beyond stay.
 * Its processes share those, as if each had found them so: nothing that the tests run in it uses AMX. */

#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

/* The header of an XSAVE area: which components are not in their initial state (Intel SDM 1, 13.4.2). */
#define PRESENT 512
#define HEADER_ENDS 576

static long (*next)(int, ...);
/* Not on the stack, which is of one of the guest's tasks and has 16 KiB. Only its kernel's one thread asks. */
static uint8_t area[1 << 16];

/* Before the guest's kernel runs. */
__attribute__((constructor)) static void find_next(void) {
    next = (long (*)(int, ...))dlsym(RTLD_NEXT, "ptrace");
}

/* Components that end within so many bytes. */
static uint64_t components_within(size_t bytes) {
    static size_t asked;
    static uint64_t within;
    /* CPUID is slow in a virtual machine; it is always the same buffer. */
    if (bytes == asked)
        return within;
    within = 3; /* x87 and SSE, before the header. */
    for (unsigned nth = 2; nth < 63; nth++) {
        unsigned size, offset, of_supervisor, unused;
        __cpuid_count(0xd, nth, size, offset, of_supervisor, unused);
        if (size != 0 && (of_supervisor & 1) == 0 && (size_t)offset + size <= bytes)
            within |= 1ull << nth;
    }
    asked = bytes;
    return within;
}

static long set_registers(void *process, const struct iovec *guest) {
    struct iovec all = {area, sizeof area};
    size_t bytes = guest->iov_len;
    long failed = next(PTRACE_GETREGSET, process, NT_X86_XSTATE, &all);
    if (failed)
        return failed;
    /* Else it knows them all. */
    if (bytes >= HEADER_ENDS && bytes < all.iov_len) {
        uint64_t own, present, within = components_within(bytes);
        memcpy(&own, area + PRESENT, sizeof own);
        memcpy(area, guest->iov_base, bytes);
        memcpy(&present, area + PRESENT, sizeof present);
        present = (present & within) | (own & ~within);
        memcpy(area + PRESENT, &present, sizeof present);
        guest = &all;
    }
    return next(PTRACE_SETREGSET, process, NT_X86_XSTATE, guest);
}

long ptrace(enum __ptrace_request request, ...) {
    va_list rest;
    va_start(rest, request);
    void *process = va_arg(rest, void *), *address = va_arg(rest, void *), *data = va_arg(rest, void *);
    va_end(rest);
    if (request == PTRACE_SETREGSET && address == (void *)NT_X86_XSTATE)
        return set_registers(process, data);
    return next(request, process, address, data);
}
