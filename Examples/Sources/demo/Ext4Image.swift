import ExampleSupport
import Foundation

/// A real ext4 image with files in it, made by mkfs.ext4.
enum Ext4Image {
  static func make(in folder: URL, megabytes: Int = 64) throws -> URL {
    let places = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":") + ["/usr/sbin", "/sbin"]
    guard let tool = places.map({ "\($0)/mkfs.ext4" }).first(where: FileManager.default.isExecutableFile) else {
      throw ExampleError("mkfs.ext4 is not installed: install e2fsprogs, or give an image with --image")
    }
    let files = folder.appending(path: "files")
    try FileManager.default.createDirectory(at: files, withIntermediateDirectories: true)
    for number in 1...16 {
      let bytes = (0..<(number * 65_536)).map { UInt8(truncatingIfNeeded: $0 &* number ^ ($0 >> 7)) }
      try Data(bytes).write(to: files.appending(path: "file-\(number)"))
    }
    let image = folder.appending(path: "disk.img")
    say("making a \(megabytes) MiB ext4 image with 16 files in it")
    let process = Process()
    process.executableURL = URL(filePath: tool)
    process.arguments = ["-q", "-d", files.path, image.path, "\(megabytes)M"]
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
      throw ExampleError("mkfs.ext4 failed with status \(process.terminationStatus)")
    }
    return image
  }
}
