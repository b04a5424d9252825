import ArgumentParser
import BlkBack
import ExampleSupport
import Foundation
import Synchronization
import XenLoopback

@main struct Demo: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "demo",
    abstract: "A disk and packets through both ends of the Xen drivers, on a Xen inside this process.",
    discussion: """
      A driver domain serves two disks, each from a raw image and on a thread of its own. A guest reads the first block by \
      block, through shared rings, grants and event channels, and writes it to the second. The SHA-256 of the source, of \
      what the guest saw and of the copy must agree.

      Then the packets of a capture file go from a guest's network card to a driver domain, which sends each one back, and \
      every packet is compared. Captures may have microseconds or nanoseconds; packets longer than the card takes are \
      counted and left out.

      Without --image an ext4 image with files in it is made, which needs mkfs.ext4; without --pcap, 5000 packets.

      With --xenstore-socket the programs of xenstore look into the running system, and may change it; what the devices come \
      to can be looked at in peace with --hold:

        demo --xenstore-socket xenstore --hold
        XENSTORED_PATH=xenstore xenstore-ls -f
      """)

  @Option(help: ArgumentHelp("The raw image to copy; it is only read.", valueName: "file"))
  var image: String?

  @Option(
    help: ArgumentHelp("Where the copy goes, in place of a temporary file; it is written over.", valueName: "file"))
  var copy: String?

  @Option(help: ArgumentHelp("The capture whose packets to send; it is only read.", valueName: "file"))
  var pcap: String?

  @Option(
    help: ArgumentHelp(
      "Where a capture of what crossed goes, in place of a file in the temporary folder; it is written over.",
      valueName: "file"))
  var crossed: String?

  @Option(
    help: ArgumentHelp(
      "Serve the store on a unix socket at this path while the program runs, as xenstored does.", valueName: "path"))
  var xenstoreSocket: String?

  @Flag(
    help: ArgumentHelp(
      "Leave the devices connected when all is done, until Enter, SIGINT or SIGTERM; where standard input is at its end, "
        + "until one of the signals."))
  var hold = false

  func validate() throws {
    if hold, xenstoreSocket == nil { throw ValidationError("--hold is for looking in: give --xenstore-socket too.") }
  }

  func run() throws {
    let temporary = FileManager.default.temporaryDirectory
    let folder = temporary.appending(path: "swift-xen-demo-\(getpid())")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let image = try image ?? Ext4Image.make(in: folder).path
    // Both open what they are given, so that whatever is wrong with it is said before anything long begins.
    let disk = try DiskCopy(source: image, copy: copy ?? folder.appending(path: "copy.img").path)
    let pcap = try pcap ?? MadeUpCapture.make(in: folder).path
    let trip = try PacketTrip(
      source: pcap, crossed: crossed ?? temporary.appending(path: "swift-xen-crossed.pcap").path)
    let guest = try Guest { (bus) throws(XenstoreError) in
      try disk.register(on: bus)
      try trip.register(on: bus)
    }
    let socket = try xenstoreSocket.map { try XenstoreSocket(serving: guest.machine.loopback, at: .init($0)) }
    if let socket { say("the store is at \(socket.path); to look in: XENSTORED_PATH=\(socket.path) xenstore-ls -f") }
    let copied = try disk.run(on: guest)
    let sent = try trip.run(on: guest)
    if hold { waitForUser(guest) }
    try guest.shutDown()
    socket?.close()
    say(try disk.summary(copied) + "\n")
    say(try trip.summary(sent))
  }

  /// The guest goes on hearing of what happens in its store.
  private func waitForUser(_ guest: Guest) {
    var signals = sigset_t()
    unsafe sigemptyset(&signals)
    for number in [SIGINT, SIGTERM] {
      signal(number) { _ in stopRequested.store(true, ordering: .relaxed) }
      unsafe sigaddset(&signals, number)
    }
    // Whoever started the program may have left them blocked.
    // Safe: the set is one of our own.
    unsafe pthread_sigmask(SIG_UNBLOCK, &signals, nil)
    say("all is done, and the devices stay connected until Enter or Ctrl-C")
    var input: CInt? = STDIN_FILENO
    while !stopRequested.load(ordering: .relaxed) {
      guest.sleep(input)
      var wait = pollfd(fd: input ?? -1, events: Int16(POLLIN), revents: 0)
      // Safe: one entry of our own.
      guard unsafe poll(&wait, 1, 0) > 0 else { continue }
      if !FileHandle.standardInput.availableData.isEmpty { return }
      input = nil
    }
  }
}

private let stopRequested = Atomic(false)
