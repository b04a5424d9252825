import Glibc
import Testing
import XenNative

#if canImport(CXen)
  /// What it does on Xen is checked there, in Tests/Xen.
  @Test(.enabled(if: unsafe access("/sys/hypervisor/type", F_OK) != 0, "this machine is a Xen domain"))
  func machineWithoutXenIsToldSo() {
    #expect(throws: NativePlatformError.notXen) { _ = try NativePlatform() }
  }

  @Test func absentDeviceSaysWhichModuleToLoad() {
    let error = NativePlatformError.deviceAbsent(path: "/dev/xen/gntdev", module: "xen-gntdev")
    #expect("\(error)" == "/dev/xen/gntdev is absent: load the module xen-gntdev")
  }
#else
  @Test(.disabled("libxen-dev is not installed")) func machineWithoutXenIsToldSo() {}
#endif
