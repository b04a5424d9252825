import ArgumentParser
import ExampleSupport
import Foundation

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
    say(try disk.run() + "\n")
    say(try trip.run())
  }
}
