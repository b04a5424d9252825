import ArgumentParser
import Foundation

@main struct Demo: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "demo",
    abstract: "Copies a disk through both ends of the Xen drivers, on a Xen inside this process.",
    discussion: """
      A driver domain serves two disks, each from a raw image and on a thread of its own. A guest reads the first block by \
      block, through shared rings, grants and event channels, and writes it to the second. The SHA-256 of the source, of \
      what the guest saw and of the copy must agree.

      Without --image an ext4 image with files in it is made, which needs mkfs.ext4.
      """)

  @Option(help: ArgumentHelp("The raw image to copy; it is only read.", valueName: "file"))
  var image: String?

  @Option(
    help: ArgumentHelp("Where the copy goes, in place of a temporary file; it is written over.", valueName: "file"))
  var copy: String?

  func run() throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "swift-xen-demo-\(getpid())")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let source = try image ?? Ext4Image.make(in: folder).path
    let report = try DiskCopy(source: source, copy: copy ?? folder.appending(path: "copy.img").path).run()
    say("\n" + report)
  }
}

/// A failure that reads like a sentence.
struct DemoError: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}
