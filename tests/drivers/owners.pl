# Does what changes and what tells owners, by chance but always the same, in one process after the
# other, and prints what it is told. Most of what is asked is asked again and again at one place of
# the C library.
use strict;
use warnings;
use Fcntl qw(:mode O_RDONLY O_CREAT O_WRONLY);
use POSIX ();

my ($seed, $rounds) = @ARGV;
my $start = $seed;
my @links;
sub chance($) { my $below = shift; $seed = ($seed * 1103515245 + 12345) & 0x7fffffff; return ($seed >> 8) % $below; }

# Names of which the layers below know something, and others.
my @names = qw(shadow gshadow mail wall expiry local utmp chage a b c d e f g h);
my @folders = ("/w", "/w/mail", "/w/x", "/w/x/local", "/etc", "/var", "/usr/bin");
my @known = qw(/etc/shadow /etc/gshadow /var/mail /var/local /usr/bin/wall /usr/bin/expiry /usr/bin/chage);
my @ids = (0, 0, 8, 33, 42, 1000, 65533);
mkdir $_ for "/w", "/w/mail", "/w/x", "/w/x/local";
my $line = 0;

sub told {
    my ($what, @stat) = @_;
    $line++;
    print "$line $what ", (@stat ? sprintf("%o %d:%d %s", @stat[2, 4, 5], S_ISDIR($stat[2]) ? "-" : $stat[3]) : "none: " . ($!+0)), "\n";
}
sub path {
    return $known[chance(@known)] if chance(6) == 0;
    return $links[chance(@links)] if @links && chance(8) == 0;
    # What is in the base's own folders is left to itself but for what this program made there.
    my $folder = $folders[chance(4)];
    return "$folder/$names[chance(@names)]";
}
sub look {
    my $path = shift;
    my $how = chance(6);
    if ($how == 0) { told("stat $path", stat $path) }
    # Whether another may open a file that has links, an overlay may not have noticed yet.
    elsif ($how == 1 && $> == 0 && open(my $file, "<", $path)) { told("fstat $path", stat $file); told("again $path", stat $file) }
    elsif ($how == 2) { told("slash $path/.", lstat "$path/.") }
    elsif ($how == 3) { (my $folder = $path) =~ s{/[^/]*$}{}; (my $name = $path) =~ s{.*/}{}; chdir $folder; told("here $name", lstat $name); chdir "/" }
    else { told("lstat $path", lstat $path) }
}
sub act {
    my ($path, $other) = (path(), path());
    my $is_link = grep { $_ eq $path } @links;
    my $is_known = $is_link || grep { $_ eq $path } @known;
    my $what = chance(13);
    if ($what <= 1) { chown $ids[chance(@ids)], $ids[chance(@ids)], $path }
    elsif ($what == 2 && !$is_known) { unlink $path }
    elsif ($what == 3 && !$is_known) { unlink $path; symlink $other, $path }
    elsif ($what == 4 && $is_known) {
        # Such a link stays: where it goes, an overlay of a user's counts the rest wrongly.
        if (@links < 20) { my $link = "/w/link" . $start . @links; push @links, $link if link $path, $link }
    }
    elsif ($what == 4 && !$is_link) { link $path, "/w/$names[chance(@names)]" }
    elsif ($what == 5 && !$is_known) { rename $path, $other unless -d $path || grep { $_ eq $other } @known, @links }
    elsif ($what == 6) { chmod 0600 + chance(64), $path }
    elsif ($what == 7) { utime 1, 1, $path }
    elsif ($what <= 10 && !$is_known) { if (sysopen(my $file, $path, O_CREAT | O_WRONLY, 0644)) { syswrite $file, "x" } }
    elsif ($what == 11 && !$is_known) { mkdir $path }
    elsif (!$is_known) { rmdir $path unless grep { $_ eq $path } @folders }
}
sub run { for (1 .. $rounds) { act() if chance(3) == 0; look(path()) } }

run();
# A child that has all of this, and one that is somebody else, who may not see all.
$| = 1;
for my $user (0, 33, 0) {
    my $child = fork // die "fork: $!";
    if ($child == 0) {
        if ($user) { $( = $user; $) = "$user $user"; POSIX::setuid($user) or die "setuid: $!" }
        mkdir "/w/closed", 0700 if !$user;
        look(path()) for 1 .. 50;
        told("closed $user", lstat "/root/x");
        told("beside $user", lstat "/w/closed/..") ;
        told("within $user", lstat "/w/closed/nothing");
        run() if !$user;
        exit 0;
    }
    waitpid $child, 0;
    chance(1000);
}
# One in another root.
my $child = fork // die "fork: $!";
if ($child == 0) {
    chroot "/w" or die "chroot: $!";
    chdir "/";
    for my $name (@names, @names) { told("inside $name", lstat "/$name"); told("followed $name", stat "/$name") }
    exit 0;
}
waitpid $child, 0;
run();
