# Asks the kernel, and the supervisor only where it may know more than that: what is written over an
# unused end of a library's text. See `code.rs` for how it is entered and for the numbers.
#
# Registers: ebx the call's number, rbp the table, r15 the frame, r13 how many other links the file
# has, r9d the call's flags; rdi, rsi, rdx, r10 and r8 stay the call's arguments; rax, rcx and r11 are
# the kernel's to change. The frame: the file's inode, and its time of change in two parts.

    .pushsection .rodata.ocibuild_quick, "a"
    .balign 16
    .globl ocibuild_quick_start, ocibuild_quick_entry, ocibuild_quick_told, ocibuild_quick_end
    .hidden ocibuild_quick_start, ocibuild_quick_entry, ocibuild_quick_told, ocibuild_quick_end
ocibuild_quick_start:
    .quad {sign}
ocibuild_quick_off: .quad 0
ocibuild_quick_table: .quad 0
ocibuild_quick_names: .quad 0
ocibuild_quick_entry:
    push rbx
    push rbp
    push r9
    push r12
    push r13
    push r14
    push r15
    sub rsp, 24
    mov r15, rsp
    mov ebx, eax
    cmp qword ptr [rip + ocibuild_quick_off], 0
    jne .Lquick_ask
    mov rbp, qword ptr [rip + ocibuild_quick_table]
    test rbp, rbp
    jz .Lquick_get_table
    # The kernel's own answer. An error is one in any case.
    movabs r9, {pass}
    syscall
    test rax, rax
    jnz .Lquick_return
    # Whose it is, which inode, how many links, when changed; of `struct stat` and of `struct statx`.
    cmp ebx, {statx}
    je .Lquick_statx
    mov rcx, rsi
    cmp ebx, {newfstatat}
    jne .Lquick_stat
    mov rcx, rdx
.Lquick_stat:
    mov rax, qword ptr [rcx + 104]
    mov qword ptr [r15 + 8], rax
    mov eax, dword ptr [rcx + 112]
    mov qword ptr [r15 + 16], rax
    xor r13d, r13d
    mov eax, dword ptr [rcx + 24]
    and eax, {kind}
    cmp eax, {folder}
    je .Lquick_links
    mov r13, qword ptr [rcx + 16]
    dec r13
.Lquick_links:
    mov rax, qword ptr [rcx + 28]
    mov rcx, qword ptr [rcx + 8]
    jmp .Lquick_inode
.Lquick_statx:
    mov eax, dword ptr [r8]
    and eax, {told}
    cmp eax, {told}
    jne .Lquick_ask
    mov rax, qword ptr [r8 + 96]
    mov qword ptr [r15 + 8], rax
    mov eax, dword ptr [r8 + 104]
    mov qword ptr [r15 + 16], rax
    xor r13d, r13d
    movzx eax, word ptr [r8 + 28]
    and eax, {kind}
    cmp eax, {folder}
    je .Lquick_statx_links
    mov r13d, dword ptr [r8 + 16]
    dec r13d
.Lquick_statx_links:
    mov rax, qword ptr [r8 + 20]
    mov rcx, qword ptr [r8 + 32]
.Lquick_inode:
    mov qword ptr [r15], rcx
    test rax, rax
    jnz .Lquick_ask
    # Whether the inode may have a record.
    movabs rax, {multiplier}
    imul rcx, rax
    shr rcx, {inodes_shift}
    bt qword ptr [rbp], rcx
    jc .Lquick_ask
    cmp qword ptr [rip + ocibuild_quick_names], 0
    je .Lquick_nothing_known
    # A link may have a record under another number.
    test r13, r13
    jnz .Lquick_ask
    # Whether its name may be known: which path, with which flags?
    mov rax, rsi
    mov r9d, r10d
    cmp ebx, {newfstatat}
    je .Lquick_path
    mov r9d, edx
    cmp ebx, {statx}
    je .Lquick_path
    mov rax, rdi
    mov r9d, {nofollow}
    cmp ebx, {lstat}
    je .Lquick_path
    xor r9d, r9d
    cmp ebx, {stat}
    jne .Lquick_descriptor
.Lquick_path:
    test rax, rax
    jz .Lquick_descriptor
    cmp byte ptr [rax], 0
    je .Lquick_descriptor
    call .Lquick_name
    jc .Lquick_ask
    test r9d, {nofollow}
    jnz .Lquick_remember
    # A symlink has another name than what it leads to.
    push rdi
    push rsi
    push rdx
    push r10
    sub rsp, 144
    cmp ebx, {stat}
    jne .Lquick_look
    mov rsi, rdi
    mov edi, {working_folder}
.Lquick_look:
    mov rdx, rsp
    mov r10d, {nofollow}
    movabs r9, {pass}
    mov eax, {newfstatat}
    syscall
    mov r12d, dword ptr [rsp + 24]
    add rsp, 144
    pop r10
    pop rdx
    pop rsi
    pop rdi
    test rax, rax
    jnz .Lquick_ask
    and r12d, {kind}
    cmp r12d, {symlink}
    je .Lquick_ask
    # Remembers that nothing is known of the inode.
.Lquick_remember:
    call .Lquick_place
    mov rcx, qword ptr [r15]
    mov qword ptr [rax], rcx
    mov rcx, qword ptr [r15 + 8]
    mov qword ptr [rax + 8], rcx
    mov rcx, qword ptr [r15 + 16]
    mov qword ptr [rax + 16], rcx
    jmp .Lquick_nothing_known
    # Where an inode is remembered.
.Lquick_place:
    mov rax, qword ptr [r15]
    and eax, {places}
    shl eax, 5
    lea rax, [rbp + rax + {length}]
    ret
    # A descriptor: one that is remembered as it is? A file that was changed just now may be another
    # with the same number.
.Lquick_descriptor:
    test edi, edi
    js .Lquick_ask
    call .Lquick_place
    mov rcx, qword ptr [r15]
    cmp qword ptr [rax], rcx
    jne .Lquick_ask_name
    mov rcx, qword ptr [r15 + 8]
    cmp qword ptr [rax + 8], rcx
    jne .Lquick_ask_name
    mov rcx, qword ptr [r15 + 16]
    cmp qword ptr [rax + 16], rcx
    jne .Lquick_ask_name
    push rdi
    push rsi
    sub rsp, 16
    mov edi, {coarse_clock}
    mov rsi, rsp
    mov eax, {clock_gettime}
    syscall
    mov rcx, qword ptr [rsp]
    sub rcx, qword ptr [r15 + 8]
    add rsp, 16
    pop rsi
    pop rdi
    test eax, eax
    jnz .Lquick_ask_name
    cmp rcx, 2
    jge .Lquick_nothing_known
    # No: what does the kernel call it?
.Lquick_ask_name:
    push rdi
    push rsi
    push rdx
    push r10
    sub rsp, 576
    # The path's text, from its end.
    lea r13, [rsp + 568]
    mov byte ptr [r13], 0
    mov eax, edi
    mov ecx, 10
.Lquick_digit:
    xor edx, edx
    div ecx
    add edx, 48
    dec r13
    mov byte ptr [r13], dl
    test eax, eax
    jnz .Lquick_digit
    movabs rax, {self_fd}
    mov qword ptr [r13 - 8], rax
    movabs rax, {proc_se}
    mov qword ptr [r13 - 14], rax
    lea rsi, [r13 - 14]
    mov edi, {working_folder}
    mov rdx, rsp
    mov r10d, 512
    mov eax, {readlinkat}
    syscall
    cmp rax, 512
    jae .Lquick_no_name
    mov byte ptr [rsp + rax], 0
    mov rax, rsp
    call .Lquick_name
    jmp .Lquick_named
.Lquick_no_name:
    stc
.Lquick_named:
    lea rsp, [rsp + 576]
    pop r10
    pop rdx
    pop rsi
    pop rdi
    jnc .Lquick_remember
    jmp .Lquick_ask
    # Sets the carry where the last part of the path at rax may be known, or is no name.
.Lquick_name:
    movabs r11, {prime}
.Lquick_part:
    mov r13, rax
    movabs rcx, {seed}
.Lquick_letter:
    movzx r14d, byte ptr [rax]
    test r14d, r14d
    jz .Lquick_end
    inc rax
    cmp r14d, 47
    je .Lquick_part
    xor rcx, r14
    imul rcx, r11
    jmp .Lquick_letter
.Lquick_end:
    sub rax, r13
    jz .Lquick_no_part
    cmp byte ptr [r13], 46
    jne .Lquick_look_up
    cmp rax, 1
    je .Lquick_no_part
    cmp rax, 2
    jne .Lquick_look_up
    cmp byte ptr [r13 + 1], 46
    je .Lquick_no_part
.Lquick_look_up:
    movabs r11, {multiplier}
    imul rcx, r11
    shr rcx, {names_shift}
    bt qword ptr [rbp + {names_at}], rcx
    ret
.Lquick_no_part:
    stc
    ret
    # Gets the table; this call is asked about.
.Lquick_get_table:
    push rdi
    push rsi
    push rdx
    push r10
    push r8
    movabs r9, {ask}
    mov eax, {newfstatat}
    syscall
    test eax, eax
    js .Lquick_got_table
    mov r12d, eax
    # Room for it and for what is remembered, and then the table in the room.
    xor edi, edi
    mov esi, {room}
    mov edx, 3
    mov r10d, 0x22
    mov r8, -1
    xor r9d, r9d
    mov eax, {mmap}
    syscall
    mov r13, rax
    test rax, rax
    js .Lquick_close_table
    mov rdi, rax
    mov esi, {length}
    mov edx, 1
    mov r10d, 0x11
    mov r8d, r12d
    xor r9d, r9d
    mov eax, {mmap}
    syscall
    cmp rax, r13
    je .Lquick_close_table
    mov r13, -1
.Lquick_close_table:
    mov edi, r12d
    mov eax, {close}
    syscall
    mov rdi, r13
    movabs r9, {tell}
    mov eax, {newfstatat}
    syscall
ocibuild_quick_told:
.Lquick_got_table:
    pop r8
    pop r10
    pop rdx
    pop rsi
    pop rdi
    # As the process itself would have called.
.Lquick_ask:
    mov r9, qword ptr [r15 + 56]
    mov eax, ebx
    syscall
    jmp .Lquick_return
.Lquick_nothing_known:
    xor eax, eax
.Lquick_return:
    add rsp, 24
    pop r15
    pop r14
    pop r13
    pop r12
    pop r9
    pop rbp
    pop rbx
    ret
ocibuild_quick_end:
    .popsection
