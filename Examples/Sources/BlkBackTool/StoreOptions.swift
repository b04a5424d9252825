import ArgumentParser
import BlockStores
import Crypto
import Foundation
import SystemPackage

/// Where disks' bytes are: the options of every program that serves some.
public struct StoreOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      """
      What a disk's image is: file, a raw image or a block device; overlay, a file for all that is written over --base; nbd, \
      a server's socket or URI, such as of qemu-nbd for a qcow2; memory, a size such as 64M, lost in the end.
      """, valueName: "kind"))
  var store = StoreName.file

  @Option(
    help: ArgumentHelp("What overlays begin as: a raw image or a block device, only ever read.", valueName: "file"))
  var base: String?

  @Option(
    help: ArgumentHelp(
      """
      Keep the sectors encrypted under the key in this file, 16, 24 or 32 bytes, as dm-crypt's aes-cbc-essiv:sha256 does it.
      """, valueName: "file"))
  var keyFile: String?

  @OptionGroup var access: ImageOptions

  public init() {}

  /// Whether images are files of this machine's.
  public var hasPaths: Bool { store == .file || store == .overlay }

  public func validate() throws {
    guard (store == .overlay) == (base != nil) else {
      throw ValidationError("--base and --store overlay belong together.")
    }
  }

  /// - Throws: a ``StoreFailure``.
  public func open(_ image: String, isReadOnly: Bool) throws(StoreFailure) -> OpenedStore {
    do {
      let (plain, words) = try open(plain: image, isReadOnly: isReadOnly)
      guard let keyFile else { return OpenedStore(store: plain, words: words) }
      return OpenedStore(store: EncryptedStore(plain, key: try key(in: keyFile)), words: "encrypted, \(words)")
    } catch let failure as StoreFailure { throw failure } catch {
      throw StoreFailure("\(error)", mayPass: Self.mayPass(error))
    }
  }

  /// The disk that a device's own keys name (`params`, `mode`), unless `image` names another. No key of the guest's is read.
  ///
  /// - Parameter directories: where an image may lie that a key names.
  public func open(
    for device: XenbusDevice, image: String? = nil, isReadOnly: Bool = false, in directories: ImageDirectories
  ) throws(DeviceError) -> OpenedStore {
    let named = try image == nil ? device.own.string("params") : nil
    let isReadOnly = try device.isReadOnly() || isReadOnly
    do throws(StoreFailure) {
      let path = try named.map { (named) throws(StoreFailure) in try confined(named, to: directories) }
      return try open(path ?? image!, isReadOnly: isReadOnly)
    } catch { throw error.mayPass ? .unavailable("\(error)") : .resource("\(error)") }
  }

  /// Whether another process has the image, perhaps one that was killed and has not ended, or a server does not answer.
  private static func mayPass(_ error: any Error) -> Bool {
    switch error {
    case FileStoreError.inUse, OverlayStoreError.file(.inUse), NBDStoreError.cannotConnect: true
    default: false
    }
  }

  private func confined(_ image: String, to directories: ImageDirectories) throws(StoreFailure) -> String {
    switch store {
    case .file, .overlay: try directories.path(of: image)
    case .nbd, .memory: image
    }
  }

  private func open(plain image: String, isReadOnly: Bool) throws -> (any BlockStore, words: String) {
    switch store {
    case .file:
      let file = try FileStore(path: FilePath(image), isReadOnly: isReadOnly, options: access.store)
      return (file, file.access)
    case .overlay:
      let overlay = try OverlayStore(base: FilePath(base!), overlay: FilePath(image))
      if isReadOnly { return (ReadOnlyStore(overlay), "what was written lies over \(base!)") }
      return (overlay, "what is written lies over \(base!)")
    case .nbd: return (try NBDStore(NBDAddress(image), isReadOnly: isReadOnly), "the disk is an NBD server's")
    case .memory:
      guard let byteCount = Self.byteCount(image), byteCount > 0, byteCount % 512 == 0, byteCount <= 1 << 40 else {
        throw StoreFailure("\(image) is no size of a disk in memory: give one such as 64M or 1G")
      }
      let geometry = BlockGeometry(sectorCount: byteCount / 512, isReadOnly: isReadOnly)
      return (MemoryStore(geometry: geometry), "the disk is in memory")
    }
  }

  private func key(in path: String) throws -> SymmetricKey {
    guard let bytes = FileManager.default.contents(atPath: path) else {
      throw StoreFailure("the key \(path) cannot be read")
    }
    guard [16, 24, 32].contains(bytes.count) else {
      throw StoreFailure("the key \(path) has \(bytes.count) bytes, and AES takes 16, 24 or 32")
    }
    return SymmetricKey(data: bytes)
  }

  private static func byteCount(_ text: String) -> UInt64? {
    let shift = ["K": 10, "M": 20, "G": 30][text.suffix(1).uppercased()]
    guard let number = UInt64(shift == nil ? text[...] : text.dropLast()) else { return nil }
    let (product, overflow) = number.multipliedReportingOverflow(by: 1 << UInt64(shift ?? 0))
    return overflow ? nil : product
  }
}

/// A store, and how its bytes are reached, for a log.
public struct OpenedStore {
  public let store: any BlockStore
  public let words: String
}

/// Why there is none, in a sentence.
public struct StoreFailure: Error, CustomStringConvertible {
  public let description: String
  /// There may be one in a while.
  let mayPass: Bool

  init(_ description: String, mayPass: Bool = false) { (self.description, self.mayPass) = (description, mayPass) }
}

enum StoreName: String, CaseIterable, ExpressibleByArgument { case file, overlay, nbd, memory }
